//! The ways to hosts: hops, hops of hops, and what OpenSSH's settings say of each, where they are asked for.

use indexmap::IndexMap;

use super::check::{self, Problem};
use super::diag::{Diag, Place, did_you_mean, quoted};
use super::file::Sink;
use super::keys::{At, HostKeys, foreign_hop};
use super::ssh::{Asked, Asking, SshConfig, SshQuestion, question};
use super::{Context, select};
use crate::model::{Connection, HostName, Inventory, Jump, Origin, Origins, SecretSource};

/// Hops on the way to a host.
const MOST_HOPS: usize = 8;
/// What an inventory says of a host and means for strange hops on the way there as well.
const FOR_HOPS: &[&str] =
    &["identity_file", "identities_only", "identity_agent", "certificate_file", "known_hosts", "connect_timeout"];

/// All hosts that an inventory names.
pub(super) struct Ways<'a> {
    /// Each host's keys, and what they mean alone.
    pub(super) merged: &'a IndexMap<HostName, (HostKeys, Connection)>,
    /// What stands at a host itself.
    pub(super) own: &'a IndexMap<HostName, HostKeys>,
    pub(super) sink: &'a Sink,
    pub(super) context: &'a Context,
    pub(super) asked: Option<&'a Asked<'a>>,
}

/// A machine, and what is said of the way there.
struct Reach {
    connection: Connection,
    /// The hops, and where they are named.
    jump: Option<At<Vec<String>>>,
    /// It is OpenSSH's settings that name them.
    jump_by_ssh: bool,
    /// It stands at the host itself and not at a group of which a hop may be one.
    own_jump: bool,
    /// Whose settings are asked for, for this machine and for the hops to it.
    ssh: Option<At<SshConfig>>,
    origins: Origins,
}

impl Ways<'_> {
    /// A host's connection without its hops, and its hops, first hop first.
    pub(super) fn to(&self, name: &HostName) -> Option<((Connection, Origins), Vec<Jump>)> {
        // The command line's user is for the host and not for the hops to it.
        let reach = self.named(name, self.asked.and_then(Asked::user))?;
        let hops = self.hops(&reach, &mut vec![name.to_string()])?;
        Some(((reach.connection, reach.origins), hops))
    }

    /// Asks what OpenSSH's settings say of the hosts that are wanted, and lays it under what the inventory says.
    pub(super) fn ask(&self, inventory: &mut Inventory, asking: &Asking<'_>) {
        // Who wants no host, or names one that is not there, is told so later.
        let wanted = select(inventory, asking.pattern, asking.limit).unwrap_or_default();
        let of = |name: &HostName| {
            let (keys, connection) = self.merged.get(name)?;
            Some((name.clone(), question(name, keys, connection, asking.user)?.0))
        };
        let (names, questions): (Vec<HostName>, Vec<SshQuestion>) = wanted.iter().filter_map(of).unzip();
        if names.is_empty() {
            return;
        }
        for variable in secrets(inventory) {
            asking.ssh.withhold(variable);
        }
        let asked = Asked::new(asking, questions);
        let ways = Ways { asked: Some(&asked), ..*self };
        // The hops of a host that is not asked for itself may be.
        for name in &wanted {
            let Some(((connection, origins), jump)) = ways.to(name) else { continue };
            if let Some(host) = inventory.hosts.get_mut(name) {
                host.connection = Connection { jump, ..connection };
            }
            inventory.origins.insert(name.clone(), origins);
        }
    }

    fn named(&self, name: &HostName, user: Option<&str>) -> Option<Reach> {
        let (keys, connection) = self.merged.get(name)?;
        let mut reach = Reach {
            connection: connection.clone(),
            jump: keys.jump.clone(),
            jump_by_ssh: false,
            own_jump: self.own.get(name).is_some_and(|own| own.jump.is_some()),
            ssh: None,
            origins: keys.origins(),
        };
        let Some(asked) = self.asked else { return Some(reach) };
        let Some((question, place)) = question(name, keys, connection, user) else { return Some(reach) };
        let config = keys.ssh_config.as_ref().and_then(|at| at.value.clone());
        reach.ssh = config.map(|value| At { value, place: place.clone() });
        self.lay(asked, &question, &place, &mut reach, |key| keys.has(key) || key == "user" && user.is_some())?;
        Some(reach)
    }

    /// Lays what the settings say under a machine's own.
    fn lay(
        &self,
        asked: &Asked<'_>,
        question: &SshQuestion,
        place: &Place,
        reach: &mut Reach,
        named: impl Fn(&str) -> bool,
    ) -> Option<()> {
        let settings = match asked.settings(question) {
            Ok(settings) => settings,
            Err(why) => {
                self.sink.note(Diag::at(place.clone(), format!("ssh cannot be asked: {why}")).host(&question.host));
                return None;
            }
        };
        match settings.lay(&mut reach.connection, named) {
            Ok(taken) => {
                if taken.contains(&"jump")
                    && let Some(hops) = &settings.jump
                {
                    reach.jump = Some(At { value: hops.clone(), place: place.clone() });
                    reach.jump_by_ssh = true;
                }
                reach.origins.of.extend(taken.into_iter().map(|key| (key, Origin::SshConfig)));
                reach.origins.notes.clone_from(&settings.notes);
                Some(())
            }
            Err(problems) => {
                for problem in problems {
                    let message = format!("ssh's settings cannot be followed: {}", problem.message);
                    self.sink.note(Diag::at(place.clone(), message).maybe_help(problem.help).host(&question.host));
                }
                None
            }
        }
    }

    /// The hops to a machine, first hop first, hops of hops written out. `way` names the machines that lead here.
    fn hops(&self, reach: &Reach, way: &mut Vec<String>) -> Option<Vec<Jump>> {
        let Some(jump) = &reach.jump else { return Some(Vec::new()) };
        let mut hops: Vec<Jump> = Vec::new();
        for text in &jump.value {
            // `[defaults] jump = "bastion"` goes for every host but the bastion.
            if way.last() == Some(text) && !reach.own_jump {
                break;
            }
            let wrong = |message: String| {
                self.sink.note(Diag::at(jump.place.clone(), message));
                None
            };
            let inventory = text.parse::<HostName>().ok().filter(|hop| self.merged.contains_key(hop));
            let foreign = reach.jump_by_ssh || text.contains(['@', ':', '.']);
            let hop = match inventory {
                Some(_) if way.contains(text) => {
                    let circle = way.iter().chain([text]).map(String::as_str).collect::<Vec<_>>().join(" → ");
                    return wrong(format!("hosts are reached through each other in a circle: {circle}"));
                }
                Some(hop) => self.named(&hop, None)?,
                None if foreign => match self.foreign(text, reach) {
                    Some(Ok(hop)) => hop,
                    Some(Err(problem)) => return wrong(problem.message),
                    None => return None,
                },
                None => {
                    let near = did_you_mean(text, self.merged.keys().map(HostName::as_str));
                    let message = format!("unknown host {} to jump through{near}", quoted(text));
                    let diag = Diag::at(jump.place.clone(), message);
                    self.sink.note(diag.help("a machine that is not in the inventory is written as `user@host:port`"));
                    return None;
                }
            };
            if way.len() > MOST_HOPS {
                return wrong(format!("more than {MOST_HOPS} hops lead to a host"));
            }
            if hops.is_empty() {
                way.push(text.clone());
                hops = self.hops(&hop, way)?;
                way.pop();
            }
            hops.push(Jump { name: text.clone(), connection: hop.connection });
        }
        if hops.len() > MOST_HOPS {
            let name = way.first().map_or("a host", String::as_str);
            self.sink.note(Diag::at(jump.place.clone(), format!("more than {MOST_HOPS} hops lead to {name}")));
            return None;
        }
        Some(hops)
    }

    /// A hop that is no host of the inventory. `None` after an error was noted.
    fn foreign(&self, text: &str, from: &Reach) -> Option<Result<Reach, Problem>> {
        let connection = match foreign_hop(text, &from.connection) {
            Ok(connection) => connection,
            Err(problem) => return Some(Err(problem)),
        };
        let none = Reach {
            connection,
            jump: None,
            jump_by_ssh: false,
            own_jump: false,
            ssh: from.ssh.clone(),
            origins: Origins::default(),
        };
        let (Some(asked), Some(At { value: config, place })) = (self.asked, &from.ssh) else { return Some(Ok(none)) };
        // As ssh does it: what was found for the host goes for none of its hops.
        let by_ssh = |key: &str| from.origins.of.get(key) == Some(&Origin::SshConfig);
        let plain = Connection::new(none.connection.address.clone(), none.connection.port, &none.connection.user);
        let mut hop = Reach {
            connection: Connection {
                // Where the text names none, what ssh says takes the place of either.
                user: match (text.contains('@'), from.jump_by_ssh || by_ssh("user")) {
                    (false, true) => self.context.user.clone(),
                    _ => plain.user.clone(),
                },
                ..plain
            },
            ..none
        };
        // What the inventory says of the way goes for all of it.
        let source = &from.connection;
        for key in FOR_HOPS.iter().filter(|key| from.origins.of.get(**key) == Some(&Origin::Inventory)) {
            let to = &mut hop.connection;
            match *key {
                "identity_file" => to.identity_files.clone_from(&source.identity_files),
                "identities_only" => to.identities_only = source.identities_only,
                "identity_agent" => to.identity_agent.clone_from(&source.identity_agent),
                "certificate_file" => to.certificate_files.clone_from(&source.certificate_files),
                "known_hosts" => to.known_hosts.clone_from(&source.known_hosts),
                _ => to.connect_timeout_ms = source.connect_timeout_ms,
            }
            hop.origins.of.insert(key, Origin::Inventory);
        }
        let (login, rest) = text.rsplit_once('@').map_or((None, text), |(login, rest)| (Some(login), rest));
        let port = check::host_port(rest).and_then(|(_, port)| port);
        let question = SshQuestion {
            file: config.path(),
            user: login.map(str::to_owned),
            port,
            ..SshQuestion::of(&hop.connection.address.clone())
        };
        let said = hop.origins.clone();
        let named = |key: &str| match key {
            "user" => login.is_some(),
            "port" => port.is_some(),
            key => said.of.contains_key(key),
        };
        self.lay(asked, &question, place, &mut hop, named)?;
        Some(Ok(hop))
    }
}

/// The variables of the environment that hold secrets of this inventory.
fn secrets(inventory: &Inventory) -> impl Iterator<Item = &str> {
    let services = inventory.services.infisical.iter().chain(&inventory.services.forge);
    let services = services.flat_map(|service| [&service.token, &service.client_secret]);
    let hosts = inventory.hosts.values().map(|host| &host.connection);
    let hosts = hosts.flat_map(|connection| [&connection.password, &connection.become_password]);
    services.chain(hosts).flatten().filter_map(|source| match source {
        SecretSource::Env { name } => Some(name.as_str()),
        _ => None,
    })
}
