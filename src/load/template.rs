//! `{{ … }}`: strict, bounded, and shell-quoted inside command lines.
//!
//! Invariants: an undefined variable is an error, no file is read, no secret is in reach. In a command line each
//! `{{ … }}` becomes exactly one word: it is quoted, and it is refused where the quotes would mean something else
//! (inside quotes, comments, here-documents, backticks, arithmetic, indices and `${…}`). What a command makes of its word, as
//! `eval`, `sh -c` and arithmetic comparisons do, is its own affair.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use minijinja::machinery::{ast::Stmt, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};
use serde_json::Value as Json;

use super::diag::{Place, did_you_mean, quoted};

/// The longest text that a template may become.
const LONGEST: usize = 64 * 1024;
/// Variables in variables in variables.
const DEEPEST: usize = 30;
/// Work that one template may cost.
const FUEL: u64 = 20_000;

/// Where a text ends up, and so how a value is written into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// As it is.
    Plain,
    /// As one word of a shell command.
    Shell,
}

/// What is wrong with a template.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) help: Option<String>,
    /// Where in the template.
    pub(super) range: Option<Range<usize>>,
    /// The variable's own place, when the fault lies in a variable that the template uses.
    pub(super) place: Option<Place>,
}

impl Fault {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, range: None, place: None }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    fn range(mut self, range: Option<Range<usize>>) -> Self {
        self.range = range;
        self
    }
}

/// Whether a text holds anything that a template engine would act on.
pub(super) fn has_markup(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark))
}

/// Checks a template without values; whether it needs any.
pub(super) fn check(raw: &str, mode: Mode) -> Result<bool, Fault> {
    if !has_markup(raw) {
        return Ok(false);
    }
    let tree = parse(raw, "template", syntax()).map_err(|error| explain(&error, "not a valid template"))?;
    let Stmt::Template(template) = tree else { return Ok(false) };
    let mut shell = ShellState::default();
    let mut needs_values = false;
    for child in &template.children {
        match child {
            Stmt::EmitRaw(text) => shell.read(text.raw),
            Stmt::EmitExpr(expr) => {
                needs_values = true;
                let span = expr.span();
                let range = Some(span.start_offset as usize..span.end_offset as usize);
                if mode == Mode::Shell {
                    shell.place_word().map_err(|fault| fault.range(range))?;
                }
            }
            _ => {
                return Err(Fault::new("only `{{ … }}` is filled in, not `{% … %}`")
                    .help("use an expression such as `{{ a if b else c }}`; `{% raw %}…{% endraw %}` keeps braces"));
            }
        }
    }
    Ok(needs_values)
}

/// Checks an expression such as that of `when`.
pub(super) fn check_expression(raw: &str) -> Result<(), Fault> {
    if has_markup(raw) {
        return Err(Fault::new("`when` is an expression already").help("write it without `{{ }}`"));
    }
    Environment::new().compile_expression(raw).map(drop).map_err(|error| explain(&error, "not a valid expression"))
}

/// One variable: its value, and where it was defined if that is known.
#[derive(Debug, Clone)]
pub(super) struct Var {
    pub(super) value: Json,
    pub(super) place: Option<Place>,
}

/// The variables of one host. They may refer to each other; each is worked out when it is first used.
#[derive(Debug)]
pub(super) struct Scope<'v> {
    vars: BTreeMap<&'v str, Var>,
    known: RefCell<BTreeMap<String, Value>>,
    under_way: RefCell<Vec<String>>,
}

impl<'v> Scope<'v> {
    pub(super) fn new(vars: BTreeMap<&'v str, Var>) -> Self {
        Self { vars, known: RefCell::default(), under_way: RefCell::default() }
    }

    /// Fills a template in.
    pub(super) fn fill(&self, raw: &str, mode: Mode) -> Result<String, Fault> {
        if !has_markup(raw) {
            return Ok(raw.to_owned());
        }
        check(raw, mode)?;
        let env = environment(mode);
        let template = env.template_from_str(raw).map_err(|error| explain(&error, "not a valid template"))?;
        let names = template.undeclared_variables(false);
        let values = self.values(&names)?;
        let text = template.render(values).map_err(|error| self.explain_missing(raw, &error, &names))?;
        if text.len() > LONGEST {
            return Err(Fault::new(format!("becomes longer than {LONGEST} bytes")));
        }
        Ok(text)
    }

    /// Evaluates an expression that must say yes or no.
    pub(super) fn truth(&self, raw: &str) -> Result<bool, Fault> {
        check_expression(raw)?;
        let value = self.evaluate(raw)?;
        if value.kind() == ValueKind::Bool {
            return Ok(value.is_true());
        }
        Err(Fault::new(format!("`when` is neither true nor false, but a {}", value.kind()))
            .help("compare it, as in `flag == \"yes\"`, or test it, as in `flag is defined`"))
    }

    /// A variable with every template in it filled in, for display.
    pub(super) fn resolved(&self, name: &str) -> Result<Json, Fault> {
        let value = self.variable(name)?;
        serde_json::to_value(value).map_err(|_| Fault::new(format!("variable {} is no plain value", quoted(name))))
    }

    fn evaluate(&self, raw: &str) -> Result<Value, Fault> {
        let env = environment(Mode::Plain);
        let expression = env.compile_expression(raw).map_err(|error| explain(&error, "not a valid expression"))?;
        let names = expression.undeclared_variables(false);
        let values = self.values(&names)?;
        let value = expression.eval(values).map_err(|error| self.explain_missing(raw, &error, &names))?;
        if value.is_undefined() {
            return Err(self.missing(raw, None, &names));
        }
        Ok(value)
    }

    /// The values of those of the names that are defined.
    fn values<'n>(&self, names: impl IntoIterator<Item = &'n String>) -> Result<Value, Fault> {
        // Sorted, so that of several faults always the same one is told.
        let names: BTreeSet<&String> = names.into_iter().collect();
        let mut values = BTreeMap::new();
        for name in names.into_iter().filter(|name| self.vars.contains_key(name.as_str())) {
            values.insert(name.clone(), self.variable(name)?);
        }
        Ok(Value::from(values))
    }

    fn variable(&self, name: &str) -> Result<Value, Fault> {
        if let Some(value) = self.known.borrow().get(name) {
            return Ok(value.clone());
        }
        let Some(var) = self.vars.get(name) else { return Err(Fault::new(format!("no variable {}", quoted(name)))) };
        let at_home = |mut fault: Fault| {
            fault.range = None;
            if fault.place.is_none() {
                fault.place.clone_from(&var.place);
                if var.place.is_none() && !fault.message.starts_with("variable `") {
                    fault.message = format!("variable {}: {}", quoted(name), fault.message);
                }
            }
            fault
        };
        if self.under_way.borrow().iter().any(|other| other == name) {
            let circle =
                self.under_way.borrow().iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join(" → ");
            return Err(at_home(Fault::new(format!("variables refer to each other in a circle: {circle}"))));
        }
        if self.under_way.borrow().len() > DEEPEST {
            return Err(at_home(Fault::new(format!("variables refer to each other more than {DEEPEST} deep"))));
        }
        self.under_way.borrow_mut().push(name.to_owned());
        let value = self.json(&var.value).map_err(at_home);
        self.under_way.borrow_mut().pop();
        let value = value?;
        self.known.borrow_mut().insert(name.to_owned(), value.clone());
        Ok(value)
    }

    fn json(&self, json: &Json) -> Result<Value, Fault> {
        Ok(match json {
            Json::String(text) => match lone_expression(text) {
                // `x = "{{ y }}"` is y itself, whatever its type.
                Some(expression) => self.evaluate(expression)?,
                None => Value::from(self.fill(text, Mode::Plain)?),
            },
            Json::Array(items) => items.iter().map(|item| self.json(item)).collect::<Result<Vec<_>, _>>()?.into(),
            Json::Object(map) => {
                let pairs = map.iter().map(|(key, value)| Ok((key.clone(), self.json(value)?)));
                Value::from(pairs.collect::<Result<BTreeMap<_, _>, Fault>>()?)
            }
            Json::Bool(yes) => Value::from(*yes),
            Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Value::from(whole),
                (None, Some(real)) => Value::from(real),
                (None, None) => return Err(Fault::new("is a number out of range")),
            },
            Json::Null => Value::from(()),
        })
    }

    fn explain_missing(&self, raw: &str, error: &Error, names: &std::collections::HashSet<String>) -> Fault {
        match error.kind() {
            ErrorKind::UndefinedError => self.missing(raw, error.range(), names),
            ErrorKind::OutOfFuel => Fault::new("takes too long to work out"),
            _ => explain(error, "cannot be filled in"),
        }
    }

    fn missing(&self, raw: &str, range: Option<Range<usize>>, names: &std::collections::HashSet<String>) -> Fault {
        let part = range.clone().and_then(|range| raw.get(range)).unwrap_or(raw);
        let unknown: BTreeSet<&String> = names.iter().filter(|name| !self.vars.contains_key(name.as_str())).collect();
        let Some(name) = unknown.iter().find(|name| part.contains(name.as_str())).or(unknown.first()) else {
            return Fault::new(format!("undefined value {}", quoted(part))).range(range);
        };
        let near = did_you_mean(name, self.vars.keys().copied());
        Fault::new(format!("undefined variable {}{near}", quoted(name))).range(range)
    }
}

/// `"{{ x }}"` with nothing around it: the expression in it.
fn lone_expression(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.strip_prefix('-').unwrap_or(inner);
    let inner = inner.strip_suffix('-').unwrap_or(inner);
    (!inner.contains("{{") && !inner.contains("}}")).then_some(inner)
}

/// The usual delimiters; a line end at the end stays.
fn syntax() -> SyntaxConfig {
    SyntaxConfig::builder().keep_trailing_newline(true).build().unwrap_or_default()
}

fn environment(mode: Mode) -> Environment<'static> {
    let mut env = Environment::new();
    env.set_syntax(syntax());
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_debug(true);
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(50);
    env.remove_global("debug");
    env.set_formatter(move |out, _, value| {
        if !matches!(value.kind(), ValueKind::String | ValueKind::Number | ValueKind::Bool) {
            let why = format!("a {} cannot stand in a text", value.kind());
            return Err(Error::new(ErrorKind::InvalidOperation, why));
        }
        let text = value.to_string();
        if text.contains('\0') {
            return Err(Error::new(ErrorKind::InvalidOperation, "a value holds a NUL character"));
        }
        let written = match mode {
            Mode::Plain => out.write_str(&text),
            Mode::Shell => {
                let no_word = |_| Error::new(ErrorKind::InvalidOperation, "a value cannot be quoted for a shell");
                out.write_str(&shlex::try_quote(&text).map_err(no_word)?)
            }
        };
        written.map_err(|_| Error::from(ErrorKind::WriteFailure))
    });
    env
}

fn explain(error: &Error, what: &str) -> Fault {
    let why = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    Fault::new(format!("{what}: {why}")).range(error.range())
}

/// How far the shell has come in a command line: enough to know whether a quoted word may stand here. Where shells disagree, or
/// telling would need all of their grammar, it may not, and neither may it behind that place.
#[derive(Debug, Default)]
struct ShellState {
    context: Context,
    /// What ends the expansions that it is in; a word may stand in none of them.
    inside: Vec<char>,
    /// What was read in them.
    read: String,
    /// The bracket that was just read begins a word, and may be the command `[`.
    may_be_test: bool,
    /// It is behind `>&`. A word there that is no number bash expands twice, the second time without its quotes.
    duplicates: bool,
    escaped: bool,
    in_word: bool,
    last: Option<char>,
    tainted: Option<&'static str>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Context {
    #[default]
    Bare,
    Single,
    Double,
    Comment,
}

impl ShellState {
    fn read(&mut self, text: &str) {
        for c in text.chars() {
            self.one(c);
        }
    }

    fn one(&mut self, c: char) {
        if std::mem::take(&mut self.escaped) {
            // An escaped line end is not there at all: what stands before it and what comes after it belong together.
            if c != '\n' {
                (self.in_word, self.last) = (true, None);
            }
            return;
        }
        // What a shell takes for a blank, whatever else is one.
        let blank = matches!(c, ' ' | '\t' | '\n');
        if std::mem::take(&mut self.may_be_test) && (blank || c == '[') {
            self.inside.clear();
        } else if let Some(end) = self.inside.last() {
            if c == *end {
                self.inside.pop();
            } else {
                self.expansion(c);
            }
            (self.in_word, self.last) = (!blank, Some(c));
            return;
        }
        match (self.context, c) {
            (Context::Single, '\'') | (Context::Double, '"') => self.context = Context::Bare,
            (Context::Comment, '\n') => self.context = Context::Bare,
            (Context::Single | Context::Comment, _) => {}
            (Context::Double | Context::Bare, '\\') => {
                self.escaped = true;
                return;
            }
            (Context::Double | Context::Bare, '`') => self.tainted = Some("backticks"),
            (Context::Double | Context::Bare, '{') if self.last == Some('$') => self.enter("}"),
            // Within it quotes begin anew; elsewhere it changes nothing about them.
            (Context::Double, '(') if self.last == Some('$') => self.enter(")"),
            (Context::Double, '[') if self.last == Some('$') => self.enter("]"),
            (Context::Double, _) => {}
            (Context::Bare, '\'') => {
                self.context = Context::Single;
                if self.last == Some('$') {
                    self.tainted = Some("$'…'");
                }
            }
            (Context::Bare, '"') => self.context = Context::Double,
            // Behind `$(…)` it is part of the word, behind `(…)` it is a comment.
            (Context::Bare, '#') if self.last == Some(')') => self.tainted = Some("`)#`"),
            (Context::Bare, '#') if !self.in_word => self.context = Context::Comment,
            (Context::Bare, '<') if self.last == Some('<') => self.tainted = Some("a here-document"),
            // Of its own grammar, and what bash does after an error in it is not what it does elsewhere.
            (Context::Bare, '(') if self.last == Some('=') => self.tainted = Some("an array"),
            // Arithmetic, which knows no quotes.
            (Context::Bare, '(') if self.last == Some('(') => self.enter("))"),
            // Perhaps an array's index, which is arithmetic too; the second bracket of `[[` is none.
            (Context::Bare, '[') if self.last != Some('[') => {
                self.may_be_test = !self.in_word;
                self.enter("]");
            }
            (Context::Bare, _) => {}
        }
        let ends = matches!(c, ';' | '&' | '|' | '(' | ')' | '<' | '>');
        if self.context == Context::Bare {
            let begins = c == '&' && matches!(self.last, Some('<' | '>'));
            self.duplicates = begins || (self.duplicates && !ends && !(blank && self.in_word));
        }
        self.in_word = !(blank || ends);
        self.last = Some(c);
    }

    fn enter(&mut self, ends: &str) {
        self.inside.extend(ends.chars());
        self.read.clear();
    }

    /// A character in an expansion. What would need a look at its quotes, comments or commands makes all behind it uncertain.
    fn expansion(&mut self, c: char) {
        self.read.push(c);
        let in_braces = self.inside.last() == Some(&'}');
        match c {
            '(' => self.inside.push(')'),
            '[' => self.inside.push(']'),
            '{' if self.last == Some('$') => self.inside.push('}'),
            '#' if in_braces => {}
            '\'' | '"' | '`' | '\\' | '#' | ';' | '<' | '\n' => self.tainted = Some("such an expansion"),
            _ if self.read.ends_with("case") => self.tainted = Some("such an expansion"),
            _ => {}
        }
    }

    fn place_word(&mut self) -> Result<(), Fault> {
        let wrong = match (self.tainted, self.context, self.escaped) {
            (Some(what), ..) => Some(what),
            _ if !self.inside.is_empty() => Some("the beginning of an expansion"),
            (_, Context::Single | Context::Double, _) => Some("quotes"),
            (_, Context::Comment, _) => Some("a comment"),
            (_, _, true) => Some("a backslash"),
            _ if self.last == Some('$') => Some("a dollar sign"),
            _ if self.duplicates => Some("`>&`"),
            (None, Context::Bare, false) => None,
        };
        (self.in_word, self.last, self.may_be_test) = (true, None, false);
        match wrong {
            None => Ok(()),
            Some("quotes") => Err(Fault::new("`{{ … }}` may not stand inside quotes in a command line")
                .help("leave the quotes away: the value is inserted quoted, as one word")),
            Some(what) => Err(Fault::new(format!("`{{{{ … }}}}` may not follow {what} in a command line"))
                .help("its value is inserted quoted, as one word, which would not hold there")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scope(vars: &[(&'static str, Json)]) -> Scope<'static> {
        Scope::new(vars.iter().map(|(name, value)| (*name, Var { value: value.clone(), place: None })).collect())
    }

    fn fault(result: Result<impl std::fmt::Debug, Fault>) -> String {
        result.unwrap_err().message
    }

    #[test]
    fn variables_may_use_each_other_and_keep_their_types() {
        let scope = scope(&[
            ("dir", json!("/srv/{{ name }}")),
            ("name", json!("a b")),
            ("copy", json!("{{ flag }}")),
            ("flag", json!(true)),
            ("number", json!(3)),
            ("list", json!(["{{ name }}", 1])),
        ]);
        assert_eq!(scope.fill("{{ dir }}/x-{{ number }}", Mode::Plain).unwrap(), "/srv/a b/x-3");
        assert_eq!(scope.fill("cat {{ dir }}/x {{ number }}\n", Mode::Shell).unwrap(), "cat '/srv/a b'/x 3\n");
        assert!(scope.truth("copy and number > 2").unwrap());
        assert!(scope.truth("nothing is not defined").unwrap());
        assert_eq!(scope.fill("{{ list | join(',') }}", Mode::Plain).unwrap(), "a b,1");
        assert_eq!(scope.fill("{{ nothing | default('x') }}", Mode::Plain).unwrap(), "x");
        assert_eq!(scope.resolved("list").unwrap(), json!(["a b", 1]));
        assert_eq!(scope.fill("{% raw %}{{.State}}{% endraw %}", Mode::Shell).unwrap(), "{{.State}}");
    }

    #[test]
    fn faults_say_what_is_wrong() {
        let scope = scope(&[
            ("data_dir", json!("/x")),
            ("a", json!("{{ b }}")),
            ("b", json!("{{ a }}")),
            ("list", json!([1])),
            ("nul", json!("a\0b")),
            ("broken", json!("{{ data_dirr }}")),
        ]);
        let fill = |raw: &str| fault(scope.fill(raw, Mode::Plain));
        assert_eq!(fill("{{ data_dirr }}"), "undefined variable `data_dirr`, did you mean `data_dir`?");
        assert_eq!(fill("{{ broken }}"), "variable `broken`: undefined variable `data_dirr`, did you mean `data_dir`?");
        assert_eq!(fill("{{ a }}"), "variable `a`: variables refer to each other in a circle: a → b → a");
        assert_eq!(fill("{{ list }}"), "cannot be filled in: a sequence cannot stand in a text");
        assert_eq!(fill("{{ nul }}"), "cannot be filled in: a value holds a NUL character");
        assert!(fill("{% if x %}y{% endif %}").starts_with("only `{{ … }}`"));
        assert!(fill("{% include '/etc/passwd' %}").contains("template"));
        assert!(fill("{{ 'x' * 200000 }}").contains("longer"));
        assert!(fill("{{ ").starts_with("not a valid template"));
        assert!(fault(scope.truth("data_dir")).starts_with("`when` is neither true nor false, but a string"));
        assert!(fault(scope.truth("nothing")).starts_with("undefined variable"));
        assert!(fault(scope.truth("{{ a }}")).contains("already"));
        assert!(fault(scope.truth("a ==")).starts_with("not a valid expression"));
    }

    #[test]
    fn a_word_is_refused_where_its_quotes_would_not_hold() {
        for raw in [
            "echo \"{{ x }}\"",
            "echo '{{ x }}'",
            "echo \\{{ x }}",
            "true # {{ x }}",
            "cat <<EOF\n{{ x }}\nEOF",
            "echo `cat {{ x }}`",
            "echo $'\\'' {{ x }}",
            "echo $(( {{ x }} ))",
            "echo $(\\\n( {{ x }} ))",
            "(( {{ x }} ))",
            "echo $[ {{ x }} ]",
            "a[{{ x }}]=1",
            "a=([{{ x }}]=1)",
            "echo ${a:-{{ x }}}",
            "echo \"${a:-\"{{ x }}\"}\"",
            "echo \"$(echo \"{{ x }}\")\"",
            "echo \"$(case a in a) echo \"{{ x }}\";; esac)\"",
            "echo ${{ x }}",
            "echo $\\\n{{ x }}",
            "true \\\n# {{ x }}",
            "cat <\\\n<E\n{{ x }}\nE",
            "echo >&{{ x }}",
            "echo <& a{{ x }}",
            "echo $(true)#'\n{{ x }}'",
            "((1))#'\n'{{ x }}",
            "echo a\r#'\n{{ x }}'",
            "echo a\u{a0}#'\n{{ x }}'",
        ] {
            assert!(check(raw, Mode::Shell).is_err(), "{raw}");
            assert!(check(raw, Mode::Plain).unwrap(), "{raw}");
        }
        for raw in [
            "echo \"a\"{{ x }}",
            "a#{{ x }}",
            "true # it's\n{{ x }}",
            "f --file={{ x }} >{{ y }} | $(g {{ z }})",
            "echo \\\\{{ x }}",
            "echo \"$HOME\" 'a' {{ x }}",
            "echo a\\\n# {{ x }}",
            "cp \\\n  {{ x }} \\\n  {{ y }}",
            "n=$((n + (1 * 2))); echo \"$((n)) $(uname -r) ${HOME}/x\" ${n#0} 2>&1 >/x {{ x }}",
            "[ {{ x }} = y ] && [ -n {{ y }} ]",
            "[[ -e /x ]] && ls [0-9]* a[bc] {{ x }}",
            "case {{ x }} in {{ y }}) f {{ z }};; esac",
        ] {
            assert!(check(raw, Mode::Shell).unwrap(), "{raw}");
        }
    }
}
