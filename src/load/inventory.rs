//! The inventory: several files become one, groups are resolved, every host gets its own keys and variables.
//!
//! Precedence, lowest first: `[defaults]`, groups (a group inside another outranks it; among equals the later one
//! wins), ranges of hosts, the host itself. Of several files the later one wins, key by key. What cannot be merged
//! without a guess (two approvals, two fingerprints of one name, one name for a host and a group) is an error.

use std::collections::{BTreeMap, HashSet};

use camino::{Utf8Path, Utf8PathBuf};
use indexmap::{IndexMap, IndexSet};

use super::Context;
use super::check;
use super::diag::{Diag, Diagnostics, Place, did_you_mean, quoted};
use super::file::{Node, Sink};
use super::hops::Ways;
use super::keys::{At, FILL, HostKeys};
use super::range;
use super::reader::{Got, Reader};
use super::shared;
use super::ssh::Asking;
use crate::model::{ApprovalPolicy, Connection, Group, Host, HostName, Inventory, KnownCredential, Services};

/// Groups in groups in groups.
const DEEPEST: usize = 50;

/// Reads inventory files and merges them; later ones win. What `ssh_config` would say of a host is left out: this is for who
/// reaches no host.
///
/// # Errors
/// Everything that is wrong with any of the files, at once.
pub fn inventory(paths: &[Utf8PathBuf], context: &Context) -> Result<Inventory, Diagnostics> {
    read(paths, context, None)
}

/// [`inventory`] for hosts that will be reached: what `ssh_config` says is asked for.
///
/// # Errors
/// As [`inventory`], and what cannot be asked or not be honoured.
pub fn inventory_asking(
    paths: &[Utf8PathBuf],
    context: &Context,
    asking: &Asking<'_>,
) -> Result<Inventory, Diagnostics> {
    read(paths, context, Some(asking))
}

fn read(paths: &[Utf8PathBuf], context: &Context, asking: Option<&Asking<'_>>) -> Result<Inventory, Diagnostics> {
    let sink = Sink::default();
    let texts: Vec<_> = paths.iter().filter_map(|path| Some((path.as_path(), sink.read(path)?))).collect();
    from_texts(sink, &texts, context, asking)
}

/// [`inventory`], from texts that were read already.
pub(super) fn from_texts(
    sink: Sink,
    texts: &[(&Utf8Path, String)],
    context: &Context,
    asking: Option<&Asking<'_>>,
) -> Result<Inventory, Diagnostics> {
    let mut draft = Draft::default();
    for (path, text) in texts {
        let file = sink.add(path, text);
        if let Some(node) = sink.parse(file, text) {
            draft.file(&sink, &node, path, context);
        }
    }
    let inventory = if sink.is_clean() { draft.settle(&sink, context, asking) } else { None };
    sink.finish()?;
    Ok(inventory.unwrap_or_default())
}

#[derive(Debug, Default)]
struct Draft {
    defaults: HostKeys,
    groups: IndexMap<String, GroupDraft>,
    /// Every host that any file names, and where it was named first.
    named: IndexMap<HostName, Place>,
    ranges: Vec<(Vec<HostName>, HostKeys)>,
    hosts: IndexMap<HostName, HostKeys>,
    known: BTreeMap<String, At<KnownCredential>>,
    services: Services,
    approval: Option<At<ApprovalPolicy>>,
}

#[derive(Debug)]
struct GroupDraft {
    place: Place,
    keys: HostKeys,
    hosts: Vec<HostName>,
    children: Vec<At<String>>,
}

impl Draft {
    fn file(&mut self, sink: &Sink, node: &Node<'_>, path: &Utf8Path, context: &Context) {
        let reader = Reader::new(sink, &node.place, &node.table, "an inventory", FILL);
        if let Got::Is(defaults) = reader.table("defaults") {
            self.defaults.merge(&HostKeys::read(&defaults, path, context));
            defaults.finish();
        }
        let mut mentions: Vec<(Place, Vec<HostName>)> = Vec::new();
        if let Got::Is(groups) = reader.table("groups") {
            self.groups(&groups, path, context, &mut mentions);
        }
        if let Got::Is(hosts) = reader.table("hosts") {
            self.hosts(&hosts, path, context, &mut mentions);
        }
        mentions.sort_by(|a, b| a.0.cmp(&b.0));
        for (place, names) in mentions {
            for name in names {
                self.named.entry(name).or_insert_with(|| place.clone());
            }
        }
        if let Got::Is(known) = reader.table("known") {
            self.known(&known);
        }
        if let Got::Is(services) = reader.table("services") {
            shared::services(&services, path, context, &mut self.services);
        }
        if let Got::Is(table) = reader.table("approval") {
            let place = table.here();
            if let Some(value) = shared::approval(&table, path, context) {
                self.approve(sink, At { value, place });
            }
            table.finish();
        }
        reader.finish();
    }

    fn groups(
        &mut self,
        groups: &Reader<'_>,
        path: &Utf8Path,
        context: &Context,
        mentions: &mut Vec<(Place, Vec<HostName>)>,
    ) {
        for entry in groups.entries() {
            if ["all", "ungrouped"].contains(&entry.key) {
                let diag = Diag::at(entry.key_place, format!("the group `{}` is there already", entry.key));
                groups.note(diag.help("what goes for every host stands in [defaults]"));
                continue;
            }
            if let Err(problem) = check::plain(entry.key, "group name", "._-", 100) {
                groups.note(Diag::at(entry.key_place, problem.message));
                continue;
            }
            let Got::Is(table) = groups.open(&entry, format!("the group `{}`", entry.key)) else { continue };
            let keys = HostKeys::read(&table, path, context);
            let mut hosts = Vec::new();
            if let Got::Is(lists) = table.list("hosts", expand) {
                let place = table.get("hosts").map_or_else(|| table.here(), |entry| entry.place);
                hosts = lists.into_iter().flatten().collect();
                mentions.push((place, hosts.clone()));
            }
            let place = table.get("children").map_or_else(|| table.here(), |entry| entry.place);
            let children = table.list("children", |text| Ok(text.to_owned())).value().unwrap_or_default();
            let draft = self.groups.entry(entry.key.to_owned()).or_insert_with(|| GroupDraft {
                place: entry.key_place.clone(),
                keys: HostKeys::default(),
                hosts: Vec::new(),
                children: Vec::new(),
            });
            draft.keys.merge(&keys);
            draft.hosts.extend(hosts);
            draft.children.extend(children.into_iter().map(|value| At { value, place: place.clone() }));
            table.finish();
        }
    }

    fn hosts(
        &mut self,
        hosts: &Reader<'_>,
        path: &Utf8Path,
        context: &Context,
        mentions: &mut Vec<(Place, Vec<HostName>)>,
    ) {
        for entry in hosts.entries() {
            let names = hosts.parse_at(entry.key_place.clone(), entry.key, expand);
            let Got::Is(table) = hosts.open(&entry, format!("the host `{}`", entry.key)) else { continue };
            let keys = HostKeys::read(&table, path, context);
            table.finish();
            let Got::Is(names) = names else { continue };
            mentions.push((entry.key_place, names.clone()));
            match names.as_slice() {
                [name] if !range::is_range(entry.key) => self.hosts.entry(name.clone()).or_default().merge(&keys),
                _ => self.ranges.push((names, keys)),
            }
        }
    }

    fn known(&mut self, known: &Reader<'_>) {
        for entry in known.entries() {
            let Got::Is(table) = known.open(&entry, format!("the known credential `{}`", entry.key)) else { continue };
            let fingerprint = table.need("fingerprint", table.parsed("fingerprint", check::fingerprint));
            let shared = table.flag("shared").or(false);
            table.finish();
            let (Some(fingerprint), Some(shared)) = (fingerprint, shared) else { continue };
            let new = At { value: KnownCredential { fingerprint, shared }, place: entry.key_place };
            match self.known.get(entry.key) {
                Some(old) if old.value.fingerprint != new.value.fingerprint => {
                    let message = format!("two fingerprints are known as {}", quoted(entry.key));
                    known.note(Diag::at(new.place, message).also(old.place.clone(), "the other one"));
                }
                _ => {
                    self.known.insert(entry.key.to_owned(), new);
                }
            }
        }
    }

    fn approve(&mut self, sink: &Sink, new: At<ApprovalPolicy>) {
        match &self.approval {
            // A later file could otherwise weaken what an earlier one demands.
            Some(old) if old.value != new.value => {
                let diag = Diag::at(new.place, "two files demand different approvals");
                sink.note(diag.also(old.place.clone(), "the other one"));
            }
            _ => self.approval = Some(new),
        }
    }

    /// The merged inventory; `None` only after an error was noted.
    fn settle(self, sink: &Sink, context: &Context, asking: Option<&Asking<'_>>) -> Option<Inventory> {
        for (name, place) in &self.named {
            if let Some(group) = self.groups.get(name.as_str()) {
                let message = format!("{} is the name of a host and of a group", quoted(name.as_str()));
                sink.note(Diag::at(group.place.clone(), message).also(place.clone(), "the host"));
            }
        }
        let depths = self.depths(sink)?;
        let members: IndexMap<&String, IndexSet<HostName>> =
            self.groups.keys().map(|name| (name, self.members(name))).collect();
        let ranges: Vec<(HashSet<&HostName>, &HostKeys)> =
            self.ranges.iter().map(|(names, keys)| (names.iter().collect(), keys)).collect();
        let mut order: Vec<&String> = self.groups.keys().collect();
        order.sort_by_key(|name| depths.get(name.as_str()).copied().unwrap_or_default());

        let mut merged: IndexMap<HostName, (HostKeys, Connection)> = IndexMap::new();
        for name in self.named.keys() {
            let mut keys = self.defaults.clone();
            for group in &order {
                if members.get(group).is_some_and(|members| members.contains(name))
                    && let Some(draft) = self.groups.get(group.as_str())
                {
                    keys.merge(&draft.keys);
                }
            }
            for (_, over) in ranges.iter().filter(|(names, _)| names.contains(name)) {
                keys.merge(over);
            }
            if let Some(own) = self.hosts.get(name) {
                keys.merge(own);
            }
            if let Some(connection) = keys.connection(name, sink, context) {
                merged.insert(name.clone(), (keys, connection));
            }
        }
        let ways = Ways { merged: &merged, own: &self.hosts, sink, context, asked: None };
        let mut hosts = IndexMap::new();
        for (name, (keys, connection)) in &merged {
            let jump = ways.to(name).map(|(_, jump)| jump);
            let connection = Connection { jump: jump.unwrap_or_default(), ..connection.clone() };
            let host = Host { name: name.clone(), connection, vars: keys.plain_vars(name) };
            hosts.insert(name.clone(), host);
        }
        let position = |name: &HostName| self.named.get_index_of(name);
        let groups = members.into_iter().map(|(name, hosts)| {
            let mut hosts: Vec<HostName> = hosts.into_iter().collect();
            hosts.sort_by_key(position);
            (name.clone(), Group { hosts })
        });
        let mut inventory = Inventory {
            hosts,
            groups: groups.collect(),
            origins: merged.iter().map(|(name, (keys, _))| (name.clone(), keys.origins())).collect(),
            known: self.known.iter().map(|(name, known)| (name.clone(), known.value.clone())).collect(),
            services: self.services.clone(),
            approval: self.approval.as_ref().map(|approval| approval.value.clone()),
        };
        if let Some(asking) = asking.filter(|_| sink.is_clean()) {
            ways.ask(&mut inventory, asking);
        }
        Some(inventory)
    }

    /// How deep each group lies in others: the longest way down. `None` after a circle or an unknown child.
    fn depths(&self, sink: &Sink) -> Option<BTreeMap<&str, usize>> {
        let mut clean = true;
        for child in self.groups.values().flat_map(|group| &group.children) {
            if !self.groups.contains_key(&child.value) {
                let near = did_you_mean(&child.value, self.groups.keys().map(String::as_str));
                let host = self.named.keys().any(|name| name.as_str() == child.value);
                let message = format!("unknown group {}{near}", quoted(&child.value));
                let diag = Diag::at(child.place.clone(), message);
                sink.note(if host { diag.help("it is a host: hosts stand under `hosts`") } else { diag });
                clean = false;
            }
        }
        if !clean {
            return None;
        }
        let mut settled: IndexSet<&str> = IndexSet::new();
        for name in self.groups.keys() {
            if self.circle(name, &mut Vec::new(), &mut settled, sink) {
                return None;
            }
        }
        let mut depths: BTreeMap<&str, usize> = self.groups.keys().map(|name| (name.as_str(), 0)).collect();
        // `settled` has every group after the groups in it, so that backwards each comes before them.
        for name in settled.into_iter().rev() {
            let below = depths.get(name).copied().unwrap_or_default() + 1;
            for child in self.groups.get(name).into_iter().flat_map(|group| &group.children) {
                if let Some(depth) = depths.get_mut(child.value.as_str()) {
                    *depth = below.max(*depth);
                }
            }
        }
        Some(depths)
    }

    /// Whether a group contains itself; the first circle is noted. Groups that do not are added to `settled`.
    fn circle<'d>(
        &'d self,
        name: &'d str,
        way: &mut Vec<&'d str>,
        settled: &mut IndexSet<&'d str>,
        sink: &Sink,
    ) -> bool {
        if settled.contains(name) {
            return false;
        }
        way.push(name);
        if way.len() > DEEPEST
            && let Some(group) = self.groups.get(name)
        {
            sink.note(Diag::at(group.place.clone(), format!("groups lie more than {DEEPEST} deep in each other")));
            return true;
        }
        for child in self.groups.get(name).into_iter().flat_map(|group| &group.children) {
            if let Some(start) = way.iter().position(|other| *other == child.value) {
                let round = way.iter().skip(start).chain([&child.value.as_str()]).copied().collect::<Vec<_>>();
                let message = format!("groups contain each other in a circle: {}", round.join(" → "));
                let mut diag = Diag::at(child.place.clone(), message);
                if let Some(group) = self.groups.get(&child.value).filter(|_| round.len() > 2) {
                    diag = diag.also(group.place.clone(), "which leads back there");
                }
                sink.note(diag);
                return true;
            }
            if self.circle(&child.value, way, settled, sink) {
                return true;
            }
        }
        way.pop();
        settled.insert(name);
        false
    }

    /// A group's hosts and those of all groups in it, without duplicates.
    fn members(&self, name: &str) -> IndexSet<HostName> {
        let mut seen = vec![name];
        let mut next = 0;
        let mut hosts = IndexSet::new();
        while let Some(group) = seen.get(next).and_then(|name| self.groups.get(*name)) {
            hosts.extend(group.hosts.iter().cloned());
            for child in &group.children {
                if !seen.contains(&child.value.as_str()) {
                    seen.push(&child.value);
                }
            }
            next += 1;
        }
        hosts
    }
}

fn expand(text: &str) -> Result<Vec<HostName>, check::Problem> {
    let name =
        |name: String| name.parse().map_err(|error: crate::model::BadName| check::Problem::new(error.to_string()));
    range::expand(text)?.into_iter().map(name).collect()
}
