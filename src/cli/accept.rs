//! `keyswap hosts accept`: keys that are not known yet are shown, asked about and written down.
//!
//! Invariants: only a key that was seen is said to be known; a changed, revoked or pinned one is never accepted here. Hosts are
//! scanned, not logged in to. Behind a hop whose key is new nothing can be seen, so the scan goes on after each yes until
//! nothing new turns up.

use std::sync::Arc;

use camino::Utf8PathBuf;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::args::{HostsArgs, Output};
use super::inventory::joined;
use super::session::{Session, told};
use super::{CliError, error};
use crate::model::{Connection, Host, HostName, chain};
use crate::remote::ssh::known_hosts::{Endpoint, HostKey, learn};
use crate::remote::ssh::{ConnectError, Dialer};

/// More hops than an inventory may have: after so many rounds something goes in circles.
const ROUNDS: usize = 16;

/// A host key that is not known yet, and where it would be written down.
struct Offer {
    /// The host that led there.
    host: HostName,
    connection: Connection,
    endpoint: Endpoint,
    key: HostKey,
    file: Utf8PathBuf,
}

impl Offer {
    fn is_same(&self, other: &Self) -> bool {
        self.endpoint == other.endpoint && self.key == other.key && self.file == other.file
    }

    /// What programs get of it.
    fn object(&self, why: &ConnectError) -> Value {
        let Connection { address, port, .. } = &self.connection;
        json!({
            "address": address, "port": port, "hop": why.hop, "key": self.key.kind(),
            "fingerprint": self.key.fingerprint().to_string(), "file": self.file,
        })
    }
}

pub(super) async fn accept(session: &Session, args: &HostsArgs, hosts: Vec<Host>) -> Result<u8, CliError> {
    let is_json = session.global.output == Output::Jsonl;
    let mut out = session.out();
    // A line for people, or what programs get in its place.
    let mut say = |host: &HostName, status: &str, text: String, more: Value| match (is_json, more) {
        (true, Value::Object(more)) => {
            let mut object = json!({ "event": "host-key", "host": host, "status": status });
            object.as_object_mut().into_iter().for_each(|object| object.extend(more.clone()));
            out.json(&object);
        }
        (true, _) => out.json(&json!({ "event": "host-key", "host": host, "status": status })),
        (false, _) => out.line(&text),
    };
    let inventory = joined(&args.select.inventory);
    let (mut code, mut accepted): (u8, Vec<Offer>) = (0, Vec::new());
    let mut worse = |new: u8| {
        // A key that is refused outweighs a host that is out of reach.
        if code != 2 {
            code = new;
        }
    };
    let dialer = session.dialer();
    let mut waiting = hosts;
    for _ in 0..ROUNDS {
        let mut offers: Vec<Offer> = Vec::new();
        let mut again = Vec::new();
        for (host, scanned) in scan(&dialer, std::mem::take(&mut waiting), args.forks).await {
            let Err(why) = scanned else {
                say(&host.name, "known", format!("{}: its key is known", host.name), Value::Null);
                continue;
            };
            match offered(session, &host, &why) {
                Some(offer) if accepted.iter().any(|old| old.is_same(&offer)) => {
                    worse(2);
                    let text = format!("{}: {}, though it was added to {}", host.name, chain(&why), offer.file);
                    let more = json!({ "reason": chain(&why), "file": offer.file });
                    say(&host.name, "refused", text, more);
                }
                Some(offer) => {
                    if !offers.iter().any(|other| other.is_same(&offer)) {
                        say(&host.name, "offered", show(&host, &why, &offer), offer.object(&why));
                        offers.push(offer);
                    }
                    again.push(host);
                }
                None => {
                    let refused = why.is_host_key();
                    worse(if refused { 2 } else { error::UNREACHABLE });
                    let reason = format!("{}; {}", chain(&why), why.hint(&inventory, host.name.as_str()));
                    let status = if refused { "refused" } else { "unreachable" };
                    say(&host.name, status, format!("{}: {reason}", host.name), json!({ "reason": reason }));
                }
            }
        }
        if offers.is_empty() {
            break;
        }
        if !args.yes {
            session.terminal().confirm("Are these the hosts' own keys?")?;
        }
        for offer in offers {
            let added = learn(&offer.file, &offer.endpoint, &offer.key)
                .map_err(|error| CliError::internal(&format!("cannot write {}", offer.file), error))?;
            let what = if added { "added to" } else { "stands by now in" };
            let listed = offer.endpoint.listed_as();
            let more = json!({ "listed_as": listed, "file": offer.file });
            let status = if added { "added" } else { "known" };
            say(&offer.host, status, format!("{listed}: {what} {}", offer.file), more);
            accepted.push(offer);
        }
        waiting = again;
    }
    told(out, code)
}

/// What each host presents, in the order of the hosts.
async fn scan(dialer: &Arc<Dialer>, hosts: Vec<Host>, forks: u16) -> Vec<(Host, Result<(), ConnectError>)> {
    let permits = Arc::new(Semaphore::new(usize::from(forks)));
    let mut tasks = JoinSet::new();
    for (at, host) in hosts.into_iter().enumerate() {
        let (dialer, permits) = (Arc::clone(dialer), Arc::clone(&permits));
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let scanned = dialer.scan(&host.connection).await;
            (at, host, scanned)
        });
    }
    let mut done = tasks.join_all().await;
    done.sort_by_key(|(at, ..)| *at);
    done.into_iter().map(|(_, host, scanned)| (host, scanned)).collect()
}

/// The key that a person may accept, if that is what is wrong.
fn offered(session: &Session, host: &Host, why: &ConnectError) -> Option<Offer> {
    let key = why.is_unknown_host_key().then(|| why.offered_host_key()).flatten()?.clone();
    // A hop's key is accepted under the hop's own address.
    let hop = host.connection.jump.iter().find(|hop| Some(&hop.name) == why.hop.as_ref());
    let connection = hop.map_or(&host.connection, |hop| &hop.connection).clone();
    let usual = || session.home().join(".ssh/known_hosts");
    let file = connection.known_hosts.first().cloned().unwrap_or_else(usual);
    let endpoint = Endpoint::of(&connection);
    Some(Offer { host: host.name.clone(), connection, endpoint, key, file })
}

fn show(host: &Host, why: &ConnectError, offer: &Offer) -> String {
    let Connection { address, port, .. } = &offer.connection;
    let whom = match &why.hop {
        Some(hop) => format!("{}: the hop `{hop}` ({address}:{port})", host.name),
        None => format!("{}: {address}:{port}", host.name),
    };
    format!("{whom} presents {} {}", offer.key.kind(), offer.key.fingerprint())
}
