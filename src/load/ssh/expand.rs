//! `%` tokens, `${…}` and `~` in paths: `ssh -G` prints some of them as they are written.

use camino::Utf8PathBuf;

use super::AskSsh;

/// What the tokens stand for.
pub(super) struct Tokens<'a> {
    pub(super) home: &'a str,
    pub(super) local_user: &'a str,
    /// The name that was asked for.
    pub(super) original: &'a str,
    pub(super) address: &'a str,
    pub(super) port: &'a str,
    pub(super) user: &'a str,
    pub(super) alias: Option<&'a str>,
    pub(super) jump: &'a str,
    pub(super) ssh: &'a dyn AskSsh,
}

impl Tokens<'_> {
    /// A path with all of them filled in.
    pub(super) fn path(&self, text: &str) -> Result<Utf8PathBuf, String> {
        let text = match text.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{}{rest}", self.home),
            Some(_) => return Err("names another user's home".to_owned()),
            None => text.to_owned(),
        };
        let path = self.variables(&self.percents(&text)?)?;
        if path.is_empty() || path.chars().any(char::is_control) {
            return Err("is no path".to_owned());
        }
        Ok(path.into())
    }

    fn percents(&self, text: &str) -> Result<String, String> {
        let mut filled = String::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            if c != '%' {
                filled.push(c);
                continue;
            }
            let token = rest.next();
            match token {
                Some('%') => filled.push('%'),
                Some('d') => filled += self.home,
                Some('h') => filled += self.address,
                Some('i') => filled += &self.ssh.uid().to_string(),
                Some('j') => filled += self.jump,
                Some('k') => filled += self.alias.unwrap_or(self.original),
                Some('L') => filled += self.ssh.host_name().split('.').next().unwrap_or_default(),
                Some('l') => filled += &self.ssh.host_name(),
                Some('n') => filled += self.original,
                Some('p') => filled += self.port,
                Some('r') => filled += self.user,
                Some('u') => filled += self.local_user,
                // Among them %C, a digest that OpenSSH's versions make differently.
                _ => return Err(format!("holds `%{}`, which keyswap does not fill in", token.unwrap_or(' '))),
            }
        }
        Ok(filled)
    }

    fn variables(&self, text: &str) -> Result<String, String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, behind) = after.split_once('}').ok_or_else(|| "holds a `${` without its end".to_owned())?;
            filled += before;
            filled += &self.variable(name)?;
            rest = behind;
        }
        Ok(filled + rest)
    }

    /// A variable of the environment, which has to be there.
    pub(super) fn variable(&self, name: &str) -> Result<String, String> {
        self.ssh.variable(name).ok_or_else(|| format!("needs the variable {name}, which is not set"))
    }
}
