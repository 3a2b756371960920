//! Replays what was recorded from a real server against the stand-in, in order, and compares status, error class and
//! the shape of the answer (every key at every depth), of lists of secrets which ones are in it, and what references came to.
//!
//! The fixture was extracted from the recordings: tokens and secrets are labels, ids are the recorded ones and are
//! mapped to the stand-in's as answers come. `pass` is how long (in milliseconds) the clock moves before an exchange.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::*;

const FIXTURE: &str = include_str!("../../../../tests/fixtures/infisical-exchanges.jsonl");

/// What is not the same here, and why that does no harm.
const KNOWN: &[(u64, &str)] =
    &[(167, "an organization, seen by an instance admin, has 40 settings that nobody here looks at")];

struct Replay {
    stand_in: StandIn,
    clock: Clock,
    /// Recorded ids and the stand-in's.
    ids: BTreeMap<String, String>,
    /// Labels of tokens and secrets, and their values.
    values: BTreeMap<String, String>,
}

impl Replay {
    async fn new() -> Self {
        let clock = Clock::still(1_795_440_000_500);
        let stand_in = StandIn::start(World::new(clock.clone())).await.unwrap();
        let mut replay = Self { stand_in, clock, ids: BTreeMap::new(), values: BTreeMap::new() };
        replay.first_session();
        replay
    }

    fn know(&mut self, recorded: &str, own: &str) {
        self.ids.insert(recorded.to_owned(), own.to_owned());
    }

    fn admin(&mut self, org: &str, recorded: &str) -> String {
        let mut world = self.stand_in.world();
        let admin = world.add_identity(org, None, "Instance Admin Identity");
        world.with_identity(&admin, |identity| {
            identity.instance_admin = true;
            identity.org_role = "admin".to_owned();
        });
        world.attach_token_auth(&admin, 0);
        let expires = self.clock.now() / 1000 + 7_776_000;
        let token = world.mint_past_rules(&admin, "operator", Some(expires));
        // From before the server put an end to every token.
        let endless = world.mint_past_rules(&admin, "bootstrap", None);
        drop(world);
        self.values.insert("INSTANCE_ADMIN_TOKEN".to_owned(), endless);
        self.values.insert("OPERATOR_ADMIN_TOKEN".to_owned(), token);
        self.know(recorded, &admin);
        admin
    }

    /// A fresh instance: its organization and its admin.
    fn first_session(&mut self) {
        let org = self.stand_in.world().add_org("Home");
        self.know("d0e2c85f-a908-4294-9f22-c689af373f32", &org);
        self.admin(&org, "b5903d8a-8a7a-4ec9-b6d9-b45f20a84d55");
    }

    /// The second session began with what its recording does not show being made.
    fn second_session(&mut self) {
        let org = self.stand_in.world().add_org("Home");
        let admin = self.admin(&org, "381f4691-b06b-49aa-93ea-67f84ae1e6b7");
        let mut world = self.stand_in.world();
        let project = world.add_project(&org, PROJECT);
        let other = world.add_project(&org, "other-project");
        for (environment, path, key, value) in [
            ("prod", PATH, "DECOY_DATABASE_PASSWORD", "decoy-value"),
            ("prod", PATH, KEYS[0], "test"),
            ("prod", PATH, KEYS[1], "test"),
            ("prod", "/", "ROOT_SECRET", "test"),
            ("dev", PATH, KEYS[1], "test"),
        ] {
            world.add_secret(&project, environment, path, key, value);
        }
        for project in [&project, &other] {
            world.add_member(project, &admin, &["admin"]);
        }
        let operator = world.add_identity(&org, None, "rotation-operator");
        let client = world.attach_universal_auth(&operator, "test-client-secret");
        world.add_member(&project, &operator, &["admin"]);
        let expires = Some(self.clock.now() / 1000 + 2_592_000);
        let mut identity = |name: &str, role: &str| {
            let id = world.add_identity(&org, None, name);
            world.attach_token_auth(&id, 2_592_000);
            world.add_member(&project, &id, &[role]);
            let token = world.mint_past_rules(&id, "seed", expires);
            (id, token)
        };
        let (narrow, narrow_token) = identity("forgejo-runner-01", "no-access");
        let (viewer, viewer_token) = identity("too-wide", "viewer");
        world.add_privilege(&project, &narrow, "forgejo-runner-read", &json!([World::narrow_rule()]));
        drop(world);
        for (label, value) in [
            ("NARROW_TOKEN", narrow_token.as_str()),
            ("VIEWER_TOKEN", viewer_token.as_str()),
            ("UA_CLIENT_SECRET", "test-client-secret"),
        ] {
            self.values.insert(label.to_owned(), value.to_owned());
        }
        for (recorded, own) in [
            ("0a1b70a3-5b76-46bc-acb6-1b7cd38ab8fd", &org),
            ("7b8252d3-43d6-4f27-b1be-f66b34a44d58", &project),
            ("abd3e1f5-408b-4091-8dd8-8f83ff32571e", &other),
            ("e9fd4452-65ed-49fc-831d-b2d4190e5288", &client),
            ("f98951af-652b-49e1-bcaf-89ee2beca62b", &operator),
            ("5199632e-505f-4e5f-a416-f20aa256f01a", &narrow),
            ("47031544-71b9-4f5a-9372-21ea30dee892", &viewer),
        ] {
            self.know(recorded, own);
        }
    }

    /// Ids and labels, replaced.
    fn filled(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (recorded, own) in &self.ids {
            text = text.replace(recorded, own);
        }
        // Longer labels first: one begins like another.
        for (label, value) in self.values.iter().rev() {
            let label = format!("@{label}");
            let Some(at) = text.find(&label) else { continue };
            let rest = text[at + label.len()..].to_owned();
            let bad = rest.split(['"', ' ']).next().unwrap_or_default().to_owned();
            let (two, sign) = value.rsplit_once('.').unwrap_or((value, ""));
            let spoiled = match bad.as_str() {
                "!changed" => format!("{two}.{}", sign.chars().rev().collect::<String>()),
                "!cut" => value[..value.len() - 20].to_owned(),
                "!two" => two.to_owned(),
                "!unsigned" => format!("{two}."),
                _ => value.clone(),
            };
            text = text.replace(&format!("{label}{bad}"), &spoiled);
        }
        text
    }

    async fn ask(&self, exchange: &Value) -> (u64, Value) {
        let (method, target) = exchange["line"].as_str().unwrap().split_once(' ').unwrap();
        let mut head = format!("{method} {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", self.filled(target));
        if let Some(auth) = exchange["auth"].as_str() {
            // Only what is behind the scheme holds labels.
            head += &format!("Authorization: {}\r\n", self.filled(auth));
        }
        if exchange["api_key"] == true {
            head += "X-Api-Key: test\r\n";
        }
        let body = match (&exchange["body"], exchange["raw"].as_str()) {
            (_, Some(raw)) => raw.to_owned(),
            (Value::Null, None) => String::new(),
            (body, None) => self.filled(&body.to_string()),
        };
        let request = format!("{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let address = self.stand_in.url().trim_start_matches("http://").to_owned();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn learn(&mut self, exchange: &Value, reply: &Value) {
        for (pointer, recorded) in exchange["ids"].as_object().into_iter().flatten() {
            if let Some(own) = reply.pointer(pointer).and_then(Value::as_str) {
                self.ids.entry(recorded.as_str().unwrap().to_owned()).or_insert_with(|| own.to_owned());
            }
        }
        if let (Some(label), Some(token)) = (exchange["mints"].as_str(), reply["accessToken"].as_str()) {
            self.values.insert(label.to_owned(), token.to_owned());
        }
        if let Some(secret) = reply["clientSecret"].as_str() {
            self.values.insert("UA_CLIENT_SECRET".to_owned(), secret.to_owned());
        }
    }
}

/// Keys at every depth; what stands under them is not compared.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let sorted: BTreeMap<&String, Value> = object.iter().map(|(key, value)| (key, shape(value))).collect();
            sorted.into_iter().map(|(key, value)| (key.clone(), value)).collect::<serde_json::Map<_, _>>().into()
        }
        Value::Array(items) => {
            let shapes: BTreeMap<String, Value> =
                items.iter().map(shape).map(|shape| (shape.to_string(), shape)).collect();
            shapes.into_values().collect::<Vec<_>>().into()
        }
        _ => 0.into(),
    }
}

/// As the fixture orders the shapes in a list is of no matter.
fn same_shape(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, value)| other.get(key).is_some_and(|other| same_shape(value, other)))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().all(|value| other.iter().any(|other| same_shape(value, other)))
        }
        (one, other) => one == other,
    }
}

fn secrets_in(value: &Value) -> BTreeSet<String> {
    let listed = value["secrets"].as_array().into_iter().flatten();
    listed.map(|secret| secret["secretKey"].as_str().unwrap().to_owned()).collect()
}

/// What is said beyond the shape, by the fixture's name for it: secrets that are listed and imported, a value, details.
fn told(name: &str, reply: &Value) -> Value {
    match name {
        "keys" => json!(secrets_in(reply)),
        "imported" => json!(reply["imports"].as_array().unwrap().iter().flat_map(secrets_in).collect::<BTreeSet<_>>()),
        "value" => reply["secret"]["secretValue"].clone(),
        _ => reply["details"].clone(),
    }
}

#[tokio::test]
async fn the_recordings() {
    let lines: Vec<Value> = FIXTURE.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shapes: Vec<&Value> = lines.iter().filter_map(|line| line.get("of")).collect();
    let exchanges: Vec<&Value> = lines.iter().filter(|line| line.get("n").is_some()).collect();
    let left_out: Vec<String> = lines
        .iter()
        .filter_map(|line| {
            let what = line.get("left_out")?.as_str()?;
            Some(format!("{} {what}: {}", line["count"], line["why"].as_str()?))
        })
        .collect();
    let mut replay = Replay::new().await;
    let (mut wrong, mut words, mut refusals) = (Vec::new(), 0, 0);
    let mut second = false;
    for exchange in &exchanges {
        let n = exchange["n"].as_u64().unwrap();
        if n == 421 {
            // A token whose making was not recorded.
            let identity = replay.ids["4a382e50-db9e-4d21-aba2-e06e8a14d9d7"].clone();
            let expires = replay.clock.now() / 1000 + 2_592_000;
            let token = replay.stand_in.world().mint_past_rules(&identity, "unseen", Some(expires));
            replay.values.insert("NARROW_TOKEN_3".to_owned(), token);
        }
        if n >= 428 && !second {
            second = true;
            replay.second_session();
        }
        replay.clock.pass(Duration::from_millis(exchange["pass"].as_u64().unwrap_or_default()));
        let (status, reply) = replay.ask(exchange).await;
        replay.learn(exchange, &reply);
        let line = exchange["line"].as_str().unwrap();
        let mut differs = Vec::new();
        if exchange["status"] != status {
            differs.push(format!("status {} is {status} ({reply})", exchange["status"]));
        } else if status >= 400 {
            refusals += 1;
            // A class that echoes the address holds the stand-in's ids.
            if exchange["error"].as_str().map(|error| replay.filled(error)).as_deref() != reply["error"].as_str() {
                differs.push(format!("class {} is {}", exchange["error"], reply["error"]));
            }
            let message = exchange["message"].as_str().map(|message| replay.filled(message));
            words += usize::from(message.as_deref() == reply["message"].as_str());
        }
        let wanted = shapes[usize::try_from(exchange["shape"].as_u64().unwrap()).unwrap()];
        if differs.is_empty() && !same_shape(wanted, &shape(&reply)) {
            differs.push(format!("shape\n      {wanted}\n      {}", shape(&reply)));
        }
        for name in ["keys", "imported", "value", "details"] {
            if let Some(wanted) = exchange.get(name).filter(|_| differs.is_empty())
                && *wanted != told(name, &reply)
            {
                differs.push(format!("{name} {wanted} is {}", told(name, &reply)));
            }
        }
        if !differs.is_empty() {
            wrong.push((n, format!("{n} {line}: {}", differs.join("; "))));
        }
    }
    let all = exchanges.len();
    println!("{} of {all} applicable exchanges reproduced", all - wrong.len());
    println!("{words} of {refusals} refusals word for word");
    for left_out in left_out {
        println!("not applicable: {left_out}");
    }
    for (n, wrong) in &wrong {
        let excuse = KNOWN.iter().find(|(known, _)| known == n).map_or("no excuse", |(_, why)| why);
        println!("not reproduced: {excuse}\n  {wrong}");
    }
    let numbers: Vec<u64> = wrong.iter().map(|(n, _)| *n).collect();
    let known: Vec<u64> = KNOWN.iter().map(|(n, _)| *n).collect();
    assert_eq!(numbers, known);
}
