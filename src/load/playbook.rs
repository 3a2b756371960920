//! The playbook: read and checked once, then filled in for each host.
//!
//! What does not depend on a host (names, rollout, secrets, the shape of every step) is checked when the file is
//! read. For a host the steps are read once more from the same text, so that an undefined variable is told where it stands.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use indexmap::IndexMap;
use toml::de::{DeTable, DeValue};

use super::actions::{self, Secrets};
use super::check::{self, Problem};
use super::diag::{Diag, Diagnostics, Place, Source, did_you_mean, quoted};
use super::file::{Node, Sink};
use super::reader::{Entry, Fill, Got, Reader, integer};
use super::template::{self, Var};
use super::{Context, barriers, shared, vars};
use crate::model::{
    Action, ApprovalPolicy, BatchSize, Host, Inventory, OnFailure, Once, Rollout, SecretName, SecretSource, Services,
    Step, StepRef, Vars,
};

/// A playbook that was read and checked as far as that is possible without a host.
#[derive(Debug, Clone)]
pub struct Playbook {
    /// What it says it does; the file's name if it says nothing.
    pub name: String,
    /// The file, as it was named.
    pub path: Utf8PathBuf,
    /// Which hosts, as a pattern for `select`.
    pub hosts: String,
    /// How the run is staged.
    pub rollout: Rollout,
    /// Where each secret comes from.
    pub secrets: IndexMap<SecretName, SecretSource>,
    /// The files of the identities that secrets are to be for; not of one that is minted, which has its own.
    pub identities: IndexMap<SecretName, Utf8PathBuf>,
    /// Who must sign, if this playbook asks for it.
    pub approval: Option<ApprovalPolicy>,
    vars: IndexMap<String, Var>,
    steps: Vec<StepRef>,
    hosts_place: Place,
    source: Source,
}

/// Reads a playbook.
///
/// # Errors
/// Everything that is wrong with the file, at once.
pub fn playbook(path: &Utf8Path, context: &Context) -> Result<Playbook, Diagnostics> {
    let sink = Sink::default();
    let text = sink.read(path);
    from_text(sink, path, text.as_deref().unwrap_or_default(), context)
}

/// [`playbook`], from a text that was read already.
pub(super) fn from_text(sink: Sink, path: &Utf8Path, text: &str, context: &Context) -> Result<Playbook, Diagnostics> {
    let mut playbook = None;
    // A file that could not be read has been noted and has nothing more to say.
    if sink.is_clean() {
        let file = sink.add(path, text);
        if let Some(node) = sink.parse(file, text) {
            playbook = read(&sink, &node, path, context);
        }
    }
    let source = sink.finish()?.into_iter().next();
    match (playbook, source) {
        (Some(playbook), Some(source)) => Ok(Playbook { source, ..playbook }),
        _ => Err(not_understood(path)),
    }
}

/// For what cannot happen: a reader gave up without saying why. Better no playbook than half of one.
fn not_understood(path: &Utf8Path) -> Diagnostics {
    Diagnostics::new(Vec::new(), vec![Diag::new(format!("{path} could not be understood"))])
}

fn read(sink: &Sink, node: &Node<'_>, path: &Utf8Path, context: &Context) -> Option<Playbook> {
    let reader = Reader::new(sink, &node.place, &node.table, "a playbook", Fill::Never);
    let name = reader.parsed("name", check::sentence).or(path.file_stem().unwrap_or("playbook").to_owned());
    let pattern = |text: &str| match text.trim() {
        "" => Err(Problem::new("`hosts` is empty").help("`all` means every host")),
        pattern => Ok(pattern.to_owned()),
    };
    let hosts = reader.need("hosts", reader.list("hosts", pattern)).filter(|hosts| {
        if hosts.is_empty() {
            reader.wrong("hosts", "`hosts` is empty");
        }
        !hosts.is_empty()
    });
    let hosts_place = reader.get("hosts").map_or_else(|| reader.here(), |entry| entry.place);
    // Variables are read with their templates, which only make sense for a host.
    let vars = match reader.get("vars") {
        Some(Entry { value: DeValue::Table(table), place, .. }) => {
            vars::read(&Reader::new(sink, &place, table, "`vars`", Fill::Keep))
        }
        _ => reader.table("vars").value().map(|_| IndexMap::new()).unwrap_or_default(),
    };
    let secrets = secrets(&reader, path, context);
    let rollout = match reader.table("rollout") {
        Got::Absent => Some(Rollout::default()),
        other => other.value().and_then(rollout),
    };
    let approval = match reader.table("approval") {
        Got::Absent => Some(None),
        other => other.value().and_then(|table| {
            let approval = shared::approval(&table, path, context);
            table.finish();
            approval.map(Some)
        }),
    };
    let steps = steps(&reader, &secrets);
    if let Some(rollout) = &rollout {
        barriers::check(&reader, &rollout.batches);
    }
    barriers::identities(&reader, secrets.identities.keys());
    reader.finish();
    Some(Playbook {
        name: name?,
        path: path.to_owned(),
        hosts: hosts?.join(","),
        rollout: rollout?,
        secrets: secrets.sources,
        identities: secrets.identities,
        approval: approval?,
        vars,
        steps: steps?,
        hosts_place,
        source: Source::new(path, ""),
    })
}

fn secrets(reader: &Reader<'_>, path: &Utf8Path, context: &Context) -> Secrets {
    let mut secrets = Secrets::default();
    let Got::Is(table) = reader.table("secrets") else { return secrets };
    for entry in table.entries() {
        if let Err(problem) = check::plain(entry.key, "name for a secret", "_-", 64) {
            table.note(Diag::at(entry.key_place.clone(), problem.message));
        }
        // A secret whose source is wrong is declared all the same: that is one error, not two.
        let read = shared::secret(&table, &entry, path, context);
        let (source, identity) = read.unwrap_or((SecretSource::Prompt, None));
        let minted = |source: &SecretSource| matches!(source, SecretSource::Infisical { .. });
        if minted(&source) && secrets.sources.values().any(minted) {
            table.note(Diag::at(entry.key_place.clone(), "a run gets one token from infisical, and this is a second"));
        }
        secrets.identities.extend(identity.map(|file| (entry.key.to_owned(), file)));
        secrets.sources.insert(entry.key.to_owned(), source);
    }
    secrets
}

fn rollout(table: Reader<'_>) -> Option<Rollout> {
    let default = Rollout::default();
    let batches = match table.get("batches") {
        None => Some(default.batches),
        Some(entry) => {
            let one = [(entry.place.clone(), entry.value)];
            let items: Vec<(Place, &DeValue<'_>)> = match entry.value {
                DeValue::Array(items) => {
                    items.iter().map(|item| (Place::new(entry.place.file, &item.span()), item.get_ref())).collect()
                }
                _ => one.into(),
            };
            if items.is_empty() {
                table.wrong("batches", "`batches` is empty");
            }
            let sizes: Vec<_> = items.iter().map(|(place, value)| batch(&table, place, value)).collect();
            sizes.into_iter().collect::<Option<Vec<_>>>()
        }
    };
    let max_failures = table.number("max_failures", 0..=1_000_000).or(u64::from(default.max_failures));
    let on_failure = table.word(
        "on_failure",
        &[
            ("rollback-host", OnFailure::RollbackHost),
            ("rollback-batch", OnFailure::RollbackBatch),
            ("rollback-all", OnFailure::RollbackAll),
            ("hold", OnFailure::Hold),
        ],
    );
    let on_failure = on_failure.or(default.on_failure);
    let pause = table.duration("pause").or(default.pause);
    let guard = guard(&table, default.guard);
    table.finish();
    Some(Rollout {
        batches: batches?,
        max_failures: u32::try_from(max_failures?).ok()?,
        on_failure: on_failure?,
        pause: pause?,
        guard: guard?,
    })
}

fn batch(table: &Reader<'_>, place: &Place, value: &DeValue<'_>) -> Option<BatchSize> {
    let size = match value {
        DeValue::Integer(_) => {
            integer(value).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).map(BatchSize::Count)
        }
        DeValue::String(text) => {
            let percent = text.strip_suffix('%').filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
            percent.and_then(|n| n.parse().ok()).filter(|n| (1..=100).contains(n)).map(BatchSize::Percent)
        }
        _ => None,
    };
    if size.is_none() {
        let diag = Diag::at(place.clone(), "a batch is a number of hosts above 0, or `\"1%\"` to `\"100%\"`");
        table.note(diag.help("for example `batches = [1, \"25%\", \"100%\"]`"));
    }
    size
}

/// The dead man's switch; outer `None` where it is wrong.
fn guard(table: &Reader<'_>, default: Option<Duration>) -> Option<Option<Duration>> {
    if let Some(Entry { value: DeValue::String(text), .. }) = table.get("guard")
        && text == "off"
    {
        return Some(None);
    }
    match table.duration("guard") {
        Got::Is(Duration::ZERO) => {
            table.note(
                Diag::at(table.get("guard")?.place, "the guard cannot wait for nothing").help("`\"off\"` turns it off"),
            );
            None
        }
        Got::Absent => Some(default),
        other => other.value().map(Some),
    }
}

fn steps(reader: &Reader<'_>, secrets: &Secrets) -> Option<Vec<StepRef>> {
    let Some(entry) = reader.get("steps") else {
        reader.note(Diag::at(reader.here(), "a playbook needs steps").help("each begins with `[[steps]]`"));
        return None;
    };
    if !matches!(entry.value, DeValue::Array(_)) {
        let diag = Diag::at(entry.key_place, "`steps` must be a list of tables");
        reader.note(diag.help("each step begins with `[[steps]]`"));
        return None;
    }
    let steps = step_readers(reader, Fill::Check);
    if steps.is_empty() {
        reader.note(Diag::at(entry.place, "a playbook needs at least one step"));
    }
    let all = steps.len();
    let mut refs = Vec::new();
    for (index, step) in (1..).zip(steps) {
        let name = step.fixed(|step| step.need("name", step.parsed("name", check::sentence)));
        read_step(step, StepRef { index, name: name.clone().unwrap_or_default() }, secrets);
        refs.extend(name.map(|name| StepRef { index, name }));
    }
    (refs.len() == all).then_some(refs)
}

/// A reader for each step of a playbook; what is no table is noted.
fn step_readers<'a>(playbook: &Reader<'a>, fill: Fill<'a>) -> Vec<Reader<'a>> {
    let Some(Entry { value: DeValue::Array(items), place, .. }) = playbook.get("steps") else { return Vec::new() };
    let mut readers = Vec::new();
    for item in items {
        let place = Place::new(place.file, &item.span());
        match item.get_ref() {
            DeValue::Table(table) => readers.push(Reader::new(playbook.sink(), &place, table, "a step", fill)),
            _ => playbook.note(Diag::at(place, "a step is a table")),
        }
    }
    readers
}

/// A step's options and its action. `None` where something is wrong, or not known without a host.
fn read_step(step: Reader<'_>, id: StepRef, secrets: &Secrets) -> Option<Step> {
    step.know("name");
    let once = step.fixed(|step| {
        step.word("once", &[("host", Once::Host), ("batch", Once::Batch), ("run", Once::Run)]).or(Once::Host)
    });
    let retries = step.number("retries", 0..=10).or(0);
    let timeout = step.positive("timeout").optional();
    let enabled = enabled(&step);
    let action = action(&step, secrets);
    if let Some(action) = &action {
        let key = action.key();
        if retries.is_some_and(|retries| retries > 0) && !action.is_repeatable() {
            let why = "only what changes nothing is tried again";
            step.wrong("retries", format!("`retries` does nothing for this `{key}`: {why}"));
        }
        if matches!(timeout, Some(Some(_))) && !action.takes_a_limit() {
            step.wrong("timeout", format!("`timeout` does nothing for this `{key}`"));
        }
    }
    step.finish();
    Some(Step {
        id,
        once: once?,
        enabled: enabled?,
        retries: u32::try_from(retries?).ok()?,
        timeout: timeout?,
        action: action?,
    })
}

fn enabled(step: &Reader<'_>) -> Option<bool> {
    let Some(entry) = step.get("when") else { return Some(true) };
    let result = match (entry.value, step.fill()) {
        (DeValue::Boolean(yes), _) => return Some(*yes),
        (DeValue::String(raw), Fill::Host(scope, _)) => scope.truth(raw).map(Some).map_err(|fault| (raw, fault)),
        (DeValue::String(raw), _) => template::check_expression(raw).map(|()| None).map_err(|fault| (raw, fault)),
        _ => {
            step.note(Diag::at(entry.place, "`when` must be an expression in a string, or true or false"));
            return None;
        }
    };
    match result {
        Ok(known) => known,
        Err((raw, fault)) => {
            step.fault(&entry.place, raw, fault);
            None
        }
    }
}

fn action(step: &Reader<'_>, secrets: &Secrets) -> Option<Action> {
    let there: Vec<&'static str> = Action::KEYS.iter().copied().filter(|key| step.peek(key).is_some()).collect();
    match there.as_slice() {
        [key] => {
            let entry = step.get(key)?;
            if !matches!(entry.value, DeValue::Table(_)) {
                let diag = Diag::at(entry.place, format!("`{key}` must be a table"));
                step.note(diag.help(format!("for example `{}`", actions::example(key))));
                return None;
            }
            let table = step.open(&entry, format!("`{key}`")).value()?;
            actions::read(key, table, secrets)
        }
        [] => {
            let unknown = step.rest();
            for entry in &unknown {
                let options = ["name", "when", "once", "retries", "timeout"];
                let near = did_you_mean(entry.key, Action::KEYS.iter().copied().chain(options));
                let diag = Diag::at(entry.key_place.clone(), format!("unknown action {}{near}", quoted(entry.key)));
                step.note(if near.is_empty() { diag.help(known_actions()) } else { diag });
                step.forgive(entry.key);
            }
            if unknown.is_empty() {
                step.note(Diag::at(step.here(), "the step has no action").help(known_actions()));
            }
            None
        }
        [first, second, ..] => {
            there.iter().for_each(|key| step.know(key));
            let (first, second) = (step.get(first)?, step.get(second)?);
            let message = format!("a step has exactly one action, this one has `{}` and `{}`", first.key, second.key);
            let diag = Diag::at(second.key_place, message).also(first.key_place, "the other one");
            step.note(diag.help("make two steps of it"));
            None
        }
    }
}

fn known_actions() -> String {
    format!("actions: {}", Action::KEYS.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", "))
}

impl Playbook {
    /// Every step's place and name, in order.
    #[must_use]
    pub fn step_refs(&self) -> Vec<StepRef> {
        self.steps.clone()
    }

    /// Whether the playbook's own pattern selects any host of an inventory. A name in it that the inventory does not
    /// have is a fault of the file, unlike one in a limit.
    ///
    /// # Errors
    /// What [`select`](super::select()) says of the pattern, with its place in the playbook.
    pub fn check_hosts(&self, inventory: &Inventory) -> Result<(), Diagnostics> {
        match super::select(inventory, &self.hosts, None) {
            Ok(_) => Ok(()),
            Err(error) => {
                let diag = Diag::at(self.hosts_place.clone(), error.to_string());
                Err(Diagnostics::new(vec![self.source.clone()], vec![diag]))
            }
        }
    }

    /// Whether a proof from a host's side keeps its secret to itself: plain `http` is for this machine alone, and through a host
    /// it is that host's loopback.
    ///
    /// # Errors
    /// The step that would show the secret there, with its place and the host's name.
    pub fn check_proofs(&self, services: &Services, host: &Host, steps: &[Step]) -> Result<(), Diagnostics> {
        let plain = services.infisical.as_ref().is_some_and(|service| service.url.starts_with("http://"));
        let way = &host.connection;
        if !plain || (way.jump.is_empty() && check::is_loopback(&way.address)) {
            return Ok(());
        }
        let proves = |step: &Step| matches!(step.action, Action::Prove(_)) && step.once == Once::Host && step.enabled;
        let sink = Sink::resume(vec![self.source.clone()]);
        let tree = DeTable::parse_recoverable(self.source.text()).0;
        let here = Place::new(0, &(0..0));
        let reader = Reader::new(&sink, &here, tree.get_ref(), "a playbook", Fill::Keep);
        for (_, step) in steps.iter().zip(step_readers(&reader, Fill::Keep)).filter(|(step, _)| proves(step)) {
            let place = step.peek("prove").map_or_else(|| step.here(), |entry| entry.key_place);
            let message =
                "through the host this would show the secret in clear to whoever listens on the host's loopback";
            let help =
                "give [services.infisical] an https address, or the step `once = \"run\"`: then it is asked from here";
            sink.note(Diag::at(place, message).help(help).host(host.name.as_str()));
        }
        sink.finish().map(drop)
    }

    /// The steps for one host, every `{{ … }}` filled in. `extra` is what `-e` gave.
    ///
    /// Of variables of one name, `extra` outranks the playbook's `[vars]`, which outrank the inventory's, as in
    /// Ansible.
    ///
    /// # Errors
    /// Undefined variables and values that are not right, with their places and the host's name.
    pub fn steps_for(&self, host: &Host, extra: &Vars) -> Result<Vec<Step>, Diagnostics> {
        let sink = Sink::resume(vec![self.source.clone()]);
        let scope = vars::scope(host, &self.vars, extra);
        let tree = DeTable::parse_recoverable(self.source.text()).0;
        let here = Place::new(0, &(0..0));
        let reader = Reader::new(&sink, &here, tree.get_ref(), "a playbook", Fill::Never);
        let readers = step_readers(&reader, Fill::Host(&scope, host.name.as_str()));
        let secrets = Secrets { sources: self.secrets.clone(), identities: self.identities.clone() };
        let steps: Vec<Step> =
            self.steps.iter().zip(readers).filter_map(|(id, step)| read_step(step, id.clone(), &secrets)).collect();
        sink.finish()?;
        if steps.len() == self.steps.len() { Ok(steps) } else { Err(not_understood(&self.path)) }
    }
}
