//! The probes. Each asks for one thing and holds the answer against what a narrow token gets.
//!
//! Why a name that does not exist proves something: the server checks the permission before it looks whether the
//! secret is there. So for such a name "denied" means outside of what the token may do, and "not found" inside.

use jiff::Timestamp;

use super::Expected;
use super::row::{Reason, Row, Verdict};
use crate::model::Access;
use crate::service::http::{Method, Request, clean};
use crate::service::infisical::access::details;
use crate::service::infisical::claims::Claims;
use crate::service::infisical::rules::{listed, same};
use crate::service::infisical::secrets::Folder;
use crate::service::infisical::{Class, Infisical, InfisicalError, get};

/// So many other projects are asked for.
const MOST_PROJECTS: usize = 10;

/// A row that is held against an answer.
struct Probe {
    number: u8,
    probe: String,
    expected: String,
}

impl Probe {
    fn new(number: u8, probe: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { number, probe: probe.into(), expected: expected.into() }
    }

    fn row(self, verdict: Verdict, got: impl Into<String>) -> Row {
        Row { number: self.number, probe: self.probe, expected: self.expected, got: got.into(), verdict }
    }

    fn when(self, passes: bool, got: impl Into<String>) -> Row {
        self.row(if passes { Verdict::Pass } else { Verdict::Fail }, got)
    }

    /// For an error that was not expected: a refusal of the token or of the request is an answer, a server that fails
    /// or cannot be asked gives none.
    fn error(self, error: &InfisicalError) -> Row {
        let verdict = match error.class() {
            None | Some(Class::Server | Class::Busy | Class::NoRoute | Class::Other) => Verdict::CouldNotLook,
            Some(_) => Verdict::Fail,
        };
        let got = got(error);
        self.row(verdict, got)
    }

    /// The answer must be a refusal of this class.
    fn refused<T>(self, answer: &Result<T, InfisicalError>, class: Class) -> Row {
        match answer {
            Ok(_) => self.row(Verdict::Fail, "allowed"),
            Err(error) if error.class() == Some(class) => {
                let got = got(error);
                self.row(Verdict::Pass, got)
            }
            Err(error) => self.error(error),
        }
    }

    /// The answer must be a denial by the rules, and these rules be all that there are about it.
    fn denied<T>(self, answer: &Result<T, InfisicalError>, rules: &[crate::service::infisical::Rule]) -> Row {
        match answer {
            Err(error) if error.class() == Some(Class::Denied) => match details(error) {
                Some(own) if same(&own, rules) => self.row(Verdict::Pass, format!("denied; holds {}", listed(&own))),
                Some(own) => self.row(Verdict::Fail, format!("denied; holds {}", listed(&own))),
                None => self.row(Verdict::CouldNotLook, "denied, and the answer does not say which rules are held"),
            },
            other => self.refused(other, Class::Denied),
        }
    }
}

fn got(error: &InfisicalError) -> String {
    match error {
        InfisicalError::Refused { class, refusal } => format!("{} ({})", class.word(), refusal.code),
        InfisicalError::Http(error) => error.to_string(),
        other => other.to_string(),
    }
}

/// Row 15: what the token says about itself.
pub(super) fn claims(claims: Option<&Claims>, reason: Option<&Reason>, expected: &Expected, now: Timestamp) -> Row {
    let days = expected.longest / 86_400;
    let wanted = format!("a token of {}, token auth, ends within {days} days", expected.identity);
    let probe = Probe::new(15, "the token's own claims, read offline", wanted);
    if let Some(reason) = reason {
        return probe.row(Verdict::Fail, format!("refused: {reason}"));
    }
    let Some(claims) = claims else { return probe.row(Verdict::CouldNotLook, "nothing") };
    let latest = now.as_second().saturating_add(i64::try_from(expected.longest).unwrap_or(i64::MAX));
    // A minute for two clocks.
    let in_time = claims.exp.is_some_and(|end| end <= latest.saturating_add(60));
    let method = claims.auth_method.as_deref() == Some("token-auth");
    let org = claims.org_id.as_deref() == Some(expected.org.as_str());
    let free = claims.num_uses_limit.unwrap_or(0) == 0;
    let mut wrong = Vec::new();
    for (right, what) in [
        (in_time, "ends too late"),
        (method, "not made by token auth"),
        (org, "of another organization"),
        (free, "may be used only so often"),
    ] {
        if !right {
            wrong.push(what);
        }
    }
    let says = if wrong.is_empty() { claims.to_string() } else { format!("{claims}: {}", wrong.join(", ")) };
    probe.when(wrong.is_empty(), says)
}

impl Infisical {
    /// Rows 1 to 14.
    pub(super) async fn probes(&self, expected: &Expected, operator: Option<&Self>) -> Vec<Row> {
        let canary = format!("KEYSWAP_CANARY_{}", uuid::Uuid::new_v4().simple());
        let mut rows = Vec::new();
        for access in &expected.access {
            for key in &access.read {
                rows.push(self.read_one(expected, access, key).await);
            }
            rows.push(self.canary(2, expected, (&access.environment, &access.path), &canary).await);
        }
        for environment in &expected.environments {
            rows.push(self.canary(3, expected, (environment, "/"), &canary).await);
        }
        rows.extend(self.elsewhere(expected, &canary).await);
        for environment in &expected.environments {
            rows.push(self.listing(expected, environment).await);
        }
        rows.push(self.own_projects(expected).await);
        rows.extend(self.closed_doors(expected).await);
        rows.extend(from_outside(operator, expected).await);
        rows
    }

    async fn read_one(&self, expected: &Expected, access: &Access, key: &str) -> Row {
        let probe = Probe::new(1, format!("read {key} in {}:{}", access.environment, access.path), "its value");
        let at = Folder { project: &expected.project, environment: &access.environment, path: &access.path };
        match self.secret(at, key, true).await {
            Ok(true) => probe.row(Verdict::Pass, "its value, dropped unread"),
            Ok(false) => probe.row(Verdict::Fail, "there, but its value is hidden"),
            Err(error) => probe.error(&error),
        }
    }

    async fn canary(&self, number: u8, expected: &Expected, (environment, path): (&str, &str), name: &str) -> Row {
        let probe = format!("read a name that does not exist in {environment}:{path}");
        let probe = Probe::new(number, probe, format!("denied; holds {}", listed(&expected.rules)));
        let at = Folder { project: &expected.project, environment, path };
        let answer = self.secret(at, name, false).await;
        if answer.as_ref().is_err_and(|error| error.class() == Some(Class::NotFound)) {
            return probe.row(Verdict::Fail, "not found (404): it may read any name there");
        }
        probe.denied(&answer, &expected.rules)
    }

    /// Row 4: the organization's other projects.
    async fn elsewhere(&self, expected: &Expected, name: &str) -> Vec<Row> {
        let probe = |what: String| Probe::new(4, what, "no member of it");
        let all = match self.all_projects().await {
            Ok(all) => all,
            Err(error) => {
                let row = probe("the organization's other projects".to_owned());
                return vec![row.row(Verdict::CouldNotLook, got(&error))];
            }
        };
        let mut others: Vec<String> = all.into_iter().filter(|id| *id != expected.project).collect();
        let left_out = others.len().saturating_sub(MOST_PROJECTS);
        others.truncate(MOST_PROJECTS);
        if others.is_empty() {
            return vec![probe("the organization's other projects".to_owned()).row(Verdict::Pass, "there are none")];
        }
        let mut rows = Vec::new();
        for id in others {
            let at = Folder { project: &id, environment: "prod", path: "/" };
            let answer = self.secret(at, name, false).await;
            rows.push(probe(format!("read in project {}", clean(&id))).refused(&answer, Class::NotMember));
        }
        if let Some(last) = rows.last_mut().filter(|_| left_out > 0) {
            // Row 7 lists all that it is a member of.
            last.got = format!("{} ({left_out} more projects were not asked for one by one; see row 7)", last.got);
        }
        rows
    }

    /// Rows 5 and 6: everything that shows in an environment.
    async fn listing(&self, expected: &Expected, environment: &str) -> Row {
        let own = expected.access.iter().filter(|access| access.environment == environment);
        let mut wanted: Vec<(String, String)> =
            own.flat_map(|access| access.read.iter().map(|key| (access.path.clone(), key.clone()))).collect();
        wanted.sort();
        let number = if wanted.is_empty() { 6 } else { 5 };
        let probe = Probe::new(number, format!("list all of {environment}"), all(&wanted));
        let at = Folder { project: &expected.project, environment, path: "/" };
        match self.list(at).await {
            Ok(listed) => probe.when(listed == wanted, all(&listed)),
            Err(error) => probe.error(&error),
        }
    }

    async fn own_projects(&self, expected: &Expected) -> Row {
        let probe = Probe::new(7, "list the projects that it is a member of", format!("only {}", expected.project));
        match self.projects().await {
            Ok(projects) => {
                let ids: Vec<&str> = projects.iter().map(|project| project.id.as_str()).collect();
                probe.when(ids == [expected.project.as_str()], clean(&ids.join(", ")))
            }
            Err(error) => probe.error(&error),
        }
    }

    /// Rows 8 to 12: what only somebody with more rights may ask.
    async fn closed_doors(&self, expected: &Expected) -> Vec<Row> {
        let (project, identity) = (expected.project.as_str(), expected.identity.as_str());
        let doors: [(u8, &str, Request, bool); 9] = [
            (8, "list identities", get(&["api", "v1", "identities"]).query("orgId", &expected.org), false),
            (
                9,
                "list its own tokens",
                get(&["api", "v1", "auth", "token-auth", "identities", identity, "tokens"]),
                false,
            ),
            (10, "list the project's roles", get(&["api", "v1", "projects", project, "roles"]), false),
            (
                10,
                "list the project's members",
                get(&["api", "v1", "projects", project, "memberships", "identities"]),
                false,
            ),
            (11, "admin: identities", admin(&["identity-management", "identities"]), true),
            (11, "admin: organizations", admin(&["organization-management", "organizations"]), true),
            (11, "admin: users", admin(&["user-management", "users"]), true),
            (11, "admin: encryption", admin(&["encryption-strategies"]), true),
            (12, "read the audit log", get(&["api", "v1", "organization", "audit-logs"]).query("limit", &1), false),
        ];
        let mut rows = Vec::new();
        for (number, what, request, admins) in doors {
            let answer = self.send(&request).await;
            rows.push(if admins {
                Probe::new(number, what, "only for instance admins").refused(&answer, Class::Forbidden)
            } else {
                Probe::new(number, what, "denied; holds no rule").denied(&answer, &[])
            });
        }
        rows
    }
}

fn admin(path: &[&str]) -> Request {
    let path: Vec<&str> = ["api", "v1", "admin"].iter().chain(path).copied().collect();
    Request::new(Method::Get, &path).query("limit", &1)
}

fn all(keys: &[(String, String)]) -> String {
    if keys.is_empty() {
        return "nothing".to_owned();
    }
    let shown: Vec<String> = keys.iter().take(6).map(|(path, key)| format!("{path}:{key}")).collect();
    let more = if keys.len() > 6 { format!(" and {} more", keys.len() - 6) } else { String::new() };
    clean(&format!("{}{more}", shown.join(", ")))
}

/// Rows 13 and 14: what the operator sees from outside. Rights to write are not tried, since trying could write.
async fn from_outside(operator: Option<&Infisical>, expected: &Expected) -> Vec<Row> {
    let rules = Probe::new(14, "its rules in effect, seen by the operator", listed(&expected.rules));
    let writes = Probe::new(13, "rights to write, by its rules in effect", "none");
    let home = if expected.of_org { "a member of this project only, no role beyond it" } else { "of this project" };
    let place = Probe::new(14, "where it belongs, seen by the operator", home);
    let Some(operator) = operator else {
        let unseen = "nobody to look from outside";
        return [writes, rules, place].map(|probe| probe.row(Verdict::CouldNotLook, unseen)).into();
    };
    let mut rows = Vec::new();
    match operator.effective(&expected.project, &expected.identity).await {
        Ok(sources) => {
            let temporary = sources.iter().any(|source| source.is_temporary);
            let all: Option<Vec<_>> = sources.into_iter().map(|source| source.rules).collect();
            match all.map(|all| all.into_iter().flatten().collect::<Vec<_>>()) {
                Some(own) => {
                    let exact = same(&own, &expected.rules) && !temporary;
                    rows.push(writes.when(exact, listed(&own)));
                    rows.push(rules.when(exact, listed(&own)));
                }
                None => {
                    rows.push(writes.row(Verdict::CouldNotLook, "rules of an unknown form"));
                    rows.push(rules.row(Verdict::CouldNotLook, "rules of an unknown form"));
                }
            }
        }
        Err(error) => {
            rows.push(writes.row(Verdict::CouldNotLook, got(&error)));
            rows.push(rules.row(Verdict::CouldNotLook, got(&error)));
        }
    }
    rows.push(match operator.belongs(expected).await {
        Ok((right, says)) => place.when(right, clean(&says)),
        Err(error) => place.row(Verdict::CouldNotLook, got(&error)),
    });
    rows
}

impl Infisical {
    /// Whether the identity belongs to this project alone, and in words.
    async fn belongs(&self, expected: &Expected) -> Result<(bool, String), InfisicalError> {
        if !expected.of_org {
            let path = ["api", "v1", "projects", &expected.project, "identities", &expected.identity];
            let found: crate::service::infisical::wire::OneIdentity = self.send(&get(&path)).await?.json()?;
            let project = found.identity.project_id.unwrap_or_default();
            return Ok((project == expected.project, format!("of project {project}")));
        }
        let path = ["api", "v1", "identities", &expected.identity];
        let found: crate::service::infisical::wire::OneOrgMembership = self.send(&get(&path)).await?.json()?;
        let role = found.identity.role;
        let member = self.memberships(&expected.identity).await?;
        let right = role == "no-access" && member == [expected.project.clone()];
        Ok((right, format!("role {role}; member of {}", member.join(", "))))
    }
}
