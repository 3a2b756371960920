//! Which hosts a pattern means, as Ansible's patterns do.
//!
//! Parts are separated by `,` or `:`. A part is a host, a group, `all`, `ungrouped`, a glob with `*` or `?`, a range
//! such as `runner-[01:05]`, or `@file` with one pattern a line. `&part` keeps only what is in it too, `!part` takes
//! out; wherever they stand, they come after the plain parts. The answer has the inventory's order. A name that is
//! nothing in the inventory is an error also behind `!`: a slip there would touch a host that was meant to be spared.

use std::collections::HashSet;

use camino::{Utf8Path, Utf8PathBuf};

use super::diag::{nearest, quoted};
use super::file::read_text;
use super::range;
use crate::model::{HostName, Inventory};

/// Files that name files that name files.
const DEEPEST: usize = 4;

/// Why a pattern selects nothing that could be worked on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// A name that is neither a host nor a group.
    #[error("unknown host or group {name}{}", suggestion.as_ref().map(|near| format!(", did you mean `{near}`?")).unwrap_or_default())]
    Unknown {
        /// The name, quoted.
        name: String,
        /// What was probably meant.
        suggestion: Option<String>,
    },
    /// The pattern cannot be understood.
    #[error("the pattern {pattern} is not right: {why}")]
    Pattern {
        /// The part, quoted.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// An `@file` cannot be read.
    #[error("cannot read {path}: {why}")]
    File {
        /// The file.
        path: Utf8PathBuf,
        /// Why not.
        why: String,
    },
    /// It is understood, and no host is left.
    #[error("the pattern {pattern} selects no host")]
    Empty {
        /// The pattern with its limit, quoted.
        pattern: String,
    },
}

/// The hosts that a pattern selects, and of those the ones within the limit, in the inventory's order.
///
/// `@file` paths start at the working directory. A limit that only takes out starts from all hosts.
///
/// # Errors
/// If a name is unknown, a part cannot be understood, or no host is left.
pub fn select(inventory: &Inventory, pattern: &str, limit: Option<&str>) -> Result<Vec<HostName>, SelectError> {
    let selected = evaluate(inventory, pattern)?;
    let within = limit.map(|limit| evaluate(inventory, limit)).transpose()?;
    let chosen = |name: &&HostName| selected.contains(*name) && within.as_ref().is_none_or(|set| set.contains(*name));
    let hosts: Vec<HostName> = inventory.hosts.keys().filter(chosen).cloned().collect();
    if hosts.is_empty() {
        let pattern = match limit {
            Some(limit) => format!("{} within {}", quoted(pattern), quoted(limit)),
            None => quoted(pattern),
        };
        return Err(SelectError::Empty { pattern });
    }
    Ok(hosts)
}

#[derive(Debug, Default)]
struct Parts {
    /// Something stood there that selects, if only an empty file.
    selects: bool,
    plain: Vec<String>,
    and: Vec<String>,
    not: Vec<String>,
}

fn evaluate<'i>(inventory: &'i Inventory, pattern: &str) -> Result<HashSet<&'i HostName>, SelectError> {
    let mut parts = Parts::default();
    parts.read(pattern, 0)?;
    let mut chosen: HashSet<&HostName> = HashSet::new();
    // Where nothing selects, what takes out takes out of all.
    if !(parts.selects || parts.and.is_empty() && parts.not.is_empty()) {
        chosen.extend(inventory.hosts.keys());
    }
    for part in &parts.plain {
        chosen.extend(hosts_of(inventory, part)?);
    }
    for part in &parts.and {
        let and: HashSet<&HostName> = hosts_of(inventory, part)?.into_iter().collect();
        chosen.retain(|name| and.contains(name));
    }
    for part in &parts.not {
        for name in hosts_of(inventory, part)? {
            chosen.remove(name);
        }
    }
    Ok(chosen)
}

impl Parts {
    fn read(&mut self, pattern: &str, depth: usize) -> Result<(), SelectError> {
        for part in split(pattern) {
            let wrong = |why: &str| SelectError::Pattern { pattern: quoted(part), why: why.to_owned() };
            if let Some(path) = part.strip_prefix('@') {
                if depth >= DEEPEST {
                    return Err(wrong("files name files too deep"));
                }
                self.selects = true;
                let path = Utf8Path::new(path);
                let text = read_text(path).map_err(|why| SelectError::File { path: path.to_owned(), why })?;
                for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
                    self.read(line, depth + 1)?;
                }
                continue;
            }
            let (list, name) = match (part.strip_prefix('!'), part.strip_prefix('&')) {
                (Some(name), _) => (&mut self.not, name),
                (_, Some(name)) => (&mut self.and, name),
                _ => (&mut self.plain, part),
            };
            match name.trim() {
                "" => return Err(wrong("a name is missing")),
                name if name.starts_with(['~', '!', '&', '@']) => {
                    return Err(wrong(&format!("a name cannot start with `{}`", name.get(..1).unwrap_or_default())));
                }
                name => list.push(name.to_owned()),
            }
            self.selects |= !part.starts_with(['!', '&']);
        }
        Ok(())
    }
}

/// The parts between `,` and `:`, but not between the `:` of `[01:05]`.
fn split(pattern: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    pattern
        .split(move |c| {
            match c {
                '[' => inside = true,
                ']' => inside = false,
                _ => {}
            }
            c == ',' || (c == ':' && !inside)
        })
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

fn hosts_of<'i>(inventory: &'i Inventory, part: &str) -> Result<Vec<&'i HostName>, SelectError> {
    if part == "all" || part == "*" {
        return Ok(inventory.hosts.keys().collect());
    }
    if part == "ungrouped" {
        let grouped: HashSet<&HostName> = inventory.groups.values().flat_map(|group| &group.hosts).collect();
        return Ok(inventory.hosts.keys().filter(|name| !grouped.contains(name)).collect());
    }
    if part.contains(['*', '?']) {
        let groups = inventory.groups.iter().filter(|(name, _)| glob(part, name)).flat_map(|(_, group)| &group.hosts);
        let hosts = inventory.hosts.keys().filter(|name| glob(part, name.as_str()));
        let found: Vec<&HostName> = hosts.chain(groups).collect();
        if found.is_empty() {
            let why = "it matches no host and no group".to_owned();
            return Err(SelectError::Pattern { pattern: quoted(part), why });
        }
        return Ok(found);
    }
    if range::is_range(part) {
        let names = range::expand(part)
            .map_err(|problem| SelectError::Pattern { pattern: quoted(part), why: problem.message })?;
        return names.iter().map(|name| host(inventory, name)).collect();
    }
    match inventory.groups.get(part) {
        Some(group) => Ok(group.hosts.iter().collect()),
        None => host(inventory, part).map(|host| vec![host]),
    }
}

fn host<'i>(inventory: &'i Inventory, name: &str) -> Result<&'i HostName, SelectError> {
    let known = name.parse::<HostName>().ok().and_then(|name| inventory.hosts.get_key_value(&name));
    if let Some((name, _)) = known {
        return Ok(name);
    }
    let names = inventory.groups.keys().map(String::as_str).chain(inventory.hosts.keys().map(HostName::as_str));
    let suggestion = nearest(name, names.chain(["all"])).map(str::to_owned);
    Err(SelectError::Unknown { name: quoted(name), suggestion })
}

/// `*` is any run of characters, `?` any one.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || text.get(t) == Some(c) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                // The last star takes one more.
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Context;
    use crate::load::file::Sink;

    fn inventory() -> Inventory {
        let text = "[groups.web]\nhosts = ['z', 'web-[01:03]']\n[groups.db]\nhosts = ['db-a', 'z']\n[hosts.lone]\n";
        let context = Context { home: "/h".into(), cwd: "/".into(), user: "ops".to_owned() };
        crate::load::inventory::from_texts(Sink::default(), &[("i.toml".into(), text.to_owned())], &context, None)
            .unwrap()
    }

    fn chosen(pattern: &str, limit: Option<&str>) -> String {
        match select(&inventory(), pattern, limit) {
            Ok(names) => names.iter().map(HostName::as_str).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn patterns_select_in_the_order_of_the_inventory() {
        for (pattern, limit, hosts) in [
            ("all", None, "z web-01 web-02 web-03 db-a lone"),
            ("*", Some("!web"), "db-a lone"),
            ("db,web-01", None, "z web-01 db-a"),
            ("web:&db", None, "z"),
            ("!z:web", None, "web-01 web-02 web-03"),
            ("!web", None, "db-a lone"),
            ("web-*", Some("*-0?:!*3"), "web-01 web-02"),
            ("web-[01:02],lone", None, "web-01 web-02 lone"),
            ("ungrouped", None, "lone"),
            ("w*", None, "z web-01 web-02 web-03"),
            ("web", Some("&db"), "z"),
        ] {
            assert_eq!(chosen(pattern, limit), hosts, "{pattern} {limit:?}");
        }
    }

    #[test]
    fn what_is_unknown_or_empty_is_an_error() {
        assert_eq!(chosen("wbe", None), "unknown host or group `wbe`, did you mean `web`?");
        assert_eq!(chosen("all:!web-1", None), "unknown host or group `web-1`, did you mean `web-01`?");
        assert_eq!(chosen("web-[01:04]", None), "unknown host or group `web-04`, did you mean `web-01`?");
        assert_eq!(chosen("web", Some("lone")), "the pattern `web` within `lone` selects no host");
        assert_eq!(chosen("", None), "the pattern `` selects no host");
        assert_eq!(chosen("~web.*", None), "the pattern `~web.*` is not right: a name cannot start with `~`");
        assert_eq!(
            chosen("web-[1", None),
            "the pattern `web-[1` is not right: `web-[1` is no host range: `[` has no `]`"
        );
        for pattern in ["all:!wbe-*", "wbe-*", "all:&wbe-?"] {
            assert!(chosen(pattern, None).ends_with("is not right: it matches no host and no group"), "{pattern}");
        }
        assert!(chosen("@/nowhere/at/all", None).starts_with("cannot read /nowhere/at/all: "));
    }

    #[test]
    fn a_file_holds_patterns_and_comments() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# retry\nweb-01 # why\n\nlone,db-a\n!db-a\n").unwrap();
        assert_eq!(chosen("all", Some(&format!("@{}", file.path().display()))), "web-01 lone");
        let empty = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(empty.path(), "# nobody failed\n").unwrap();
        let limit = format!("@{},!web-01", empty.path().display());
        assert_eq!(chosen("all", Some(&limit)), format!("the pattern `all` within `{limit}` selects no host"));
    }
}
