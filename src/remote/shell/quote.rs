//! Words for a target's `sh`.

/// One word, quoted so that `sh` reads exactly this text: no expansion, no splitting, and no line end in the
/// written form (a request is one line).
///
/// NUL cannot be part of a word; it is dropped, because no caller can have it: paths, keys and scripts are
/// checked when they are read.
pub(crate) fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 8);
    out.push('\'');
    for c in text.chars() {
        match c {
            '\0' => {}
            '\'' => out.push_str("'\\''"),
            '\n' => out.push_str("'\"$KS_NL\"'"),
            '\r' => out.push_str("'\"$KS_CR\"'"),
            other => out.push(other),
        }
    }
    out.push('\'');
    out
}

/// A function of the library and its arguments, as one line.
pub(crate) fn call<'a>(function: &str, args: impl IntoIterator<Item = &'a str>) -> String {
    let mut line = function.to_owned();
    for arg in args {
        line.push(' ');
        line.push_str(&word(arg));
    }
    line
}

/// A program and its arguments as a script that runs exactly that.
///
/// The script is read by a `sh` of its own, which does not know the library's variables, so line ends stay as they are.
pub(crate) fn words(argv: &[String]) -> String {
    let quoted = argv.iter().map(|word| format!("'{}'", word.replace('\0', "").replace('\'', "'\\''")));
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shell_says(shell: &[&str], text: &str) -> Vec<u8> {
        let script = "KS_NL='\n'\nKS_CR=$(printf '\\r')\nset -f\neval \"printf %s $(cat)\"\n";
        let mut child = std::process::Command::new(shell[0])
            .args(&shell[1..])
            .arg("-c")
            .arg(script)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), word(text).as_bytes()).unwrap();
        drop(child.stdin.take());
        child.wait_with_output().unwrap().stdout
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn every_shell_reads_back_the_text(text in "[^\\x00]{0,40}") {
            for shell in [&["dash"][..], &["bash"], &["busybox", "ash"]] {
                prop_assert_eq!(shell_says(shell, &text), text.as_bytes().to_vec());
            }
        }
    }

    #[test]
    fn nothing_expands() {
        let nasty = "$(touch /x) `id` $HOME \"a\" 'b' \\ * ? [a] ~ ; & | < > # \n\r end";
        assert_eq!(shell_says(&["dash"], nasty), nasty.as_bytes());
        assert!(!word(nasty).contains('\n'));
    }
}
