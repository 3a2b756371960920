//! Secrets in every form, some of them made by other programs, and in pieces.

use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

const TOKEN: &str = "test-token.AbC+/=&'\"<x>\\y z%41é-0123456789";

fn redactor(tokens: &[&str]) -> Redactor {
    let redactor = Redactor::new();
    for token in tokens {
        redactor.register(&SecretValue::new(Zeroizing::new(token.as_bytes().to_vec())).unwrap());
    }
    redactor
}

fn label(token: &str) -> String {
    format!("[secret {}]", crate::model::Fingerprint::of(token.as_bytes()).short())
}

/// What another program makes of the token, so that the forms are not checked by the code that made them.
fn piped(program: &str, args: &[&str], input: &str) -> String {
    let mut child = Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn the_message_around_a_secret_is_kept() {
    let redactor = redactor(&[TOKEN]);
    let text = format!("host a: wrote {TOKEN}, twice: {TOKEN}{TOKEN}.");
    let label = label(TOKEN);
    assert_eq!(redactor.redact(&text), format!("host a: wrote {label}, twice: {label}{label}."));
    let harmless = "Place the new token: test-token, mode 0600, sha256:0123456789ab";
    assert!(matches!(redactor.redact(harmless), Cow::Borrowed(_)));
}

#[test]
fn base64_and_hex_made_by_other_programs_are_found() {
    let redactor = redactor(&[TOKEN]);
    for around in ["", "a", "ab", "user:"] {
        let encoded = piped("base64", &["-w0"], &format!("{around}{TOKEN}{around}"));
        for text in [encoded.clone(), encoded.replace('+', "-").replace('/', "_"), encoded.replace('=', "")] {
            let redacted = redactor.redact(&text).into_owned();
            assert!(redacted.contains(&label(TOKEN)), "{text} -> {redacted}");
            let rest = redacted.replace(&label(TOKEN), "");
            assert!(rest.len() <= around.len() * 3 + 4, "{text} -> {redacted}");
        }
    }
    let dump = piped("od", &["-An", "-v", "-tx1"], TOKEN);
    for text in [dump.replace([' ', '\n'], ""), dump.replace([' ', '\n'], "").to_uppercase(), dump.clone()] {
        let redacted = redactor.redact(&text).into_owned();
        let rest = redacted.replace(&label(TOKEN), "");
        assert!(rest.len() < 12, "{text} -> {redacted}");
    }
}

#[test]
fn wrapped_and_cut_off_output_shows_no_large_piece() {
    let long = format!(
        "test-token-{}",
        "0Aa1Bb2Cc3Dd4Ee5Ff6Gg7Hh8Ii9Jj".chars().cycle().skip(3).take(200).collect::<String>()
    );
    let redactor = redactor(&[&long]);
    let wrapped = piped("base64", &[], &format!("xx{long}"));
    for line in redactor.redact(&wrapped).lines() {
        assert!(line.replace(&label(&long), "").len() < 16, "{line}");
    }
    let cut = &long[43..59];
    assert_eq!(redactor.redact(cut), label(&long));
}

#[test]
fn escaped_forms_are_found() {
    let redactor = redactor(&[TOKEN]);
    let json = serde_json::to_string(TOKEN).unwrap();
    let percent = |upper: bool, keep: &str| -> String {
        TOKEN
            .bytes()
            .map(|b| match b {
                b if b.is_ascii_alphanumeric() || keep.contains(char::from(b)) => char::from(b).to_string(),
                b if upper => format!("%{b:02X}"),
                b => format!("%{b:02x}"),
            })
            .collect()
    };
    let ascii: String = TOKEN
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) })
        .collect();
    let texts = [
        json.clone(),
        serde_json::to_string(&json).unwrap(),
        json.replace('/', "\\/").replace('&', "\\u0026").replace('<', "\\u003C"),
        ascii,
        format!("{TOKEN:?}"),
        percent(true, "-._~"),
        percent(false, "-._~!'()*/"),
        percent(true, "").replace("%20", "+"),
        percent(true, "").replace('%', "%25"),
        shlex::try_quote(TOKEN).unwrap().into_owned(),
        format!("'{}'", TOKEN.replace('\'', "'\\''")),
        TOKEN
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('"', "&quot;")
            .replace('\'', "&#39;"),
    ];
    for text in texts {
        let redacted = redactor.redact(&text).into_owned();
        let rest = redacted.replace(&label(TOKEN), "");
        assert!(rest.chars().all(|c| "\\\"'".contains(c)), "{text} -> {redacted}");
    }
}

#[test]
fn a_short_password_is_found_as_a_word_only() {
    let redactor = Redactor::new();
    redactor.register_bytes("password", b"root");
    assert_eq!(redactor.redact("root: rooted, uproot root"), "[secret password]: rooted, uproot [secret password]");
    redactor.register_bytes("password", b"hunter2");
    assert_eq!(redactor.redact("phunter2p"), "p[secret password]p");
    assert_eq!(redactor.redact("b3BzOmh1bnRlcjI="), "b3BzOm[secret password]", "ops:hunter2 in base64");
    assert!(!format!("{redactor:?}").contains("hunter2"));
}

#[test]
fn json_values_are_redacted_before_they_are_escaped() {
    let mut value = serde_json::json!({ "a": [TOKEN, 1], TOKEN: { "b": format!("x{TOKEN}") } });
    redactor(&[TOKEN]).redact_json(&mut value);
    let label = label(TOKEN);
    assert_eq!(value, serde_json::json!({ "a": [label, 1], label.clone(): { "b": format!("x{label}") } }));
}

#[test]
fn a_secret_that_ends_as_it_begins_is_not_cut_by_a_flush() {
    let mut out = Vec::new();
    let mut writer = redactor(&["$##(#00$"]).writer(&mut out);
    writer.write_all(b"x $##(#00$").unwrap();
    writer.flush().unwrap();
    drop(writer);
    assert_eq!(String::from_utf8(out).unwrap(), format!("x {}", label("$##(#00$")));
}

#[test]
fn a_flush_lets_a_prompt_through_but_no_beginning_of_a_secret() {
    let mut out = Vec::new();
    let mut writer = redactor(&["test-token-0123456789"]).writer(&mut out);
    writer.write_all(b"waiting: tes").unwrap();
    writer.flush().unwrap();
    assert_eq!(String::from_utf8_lossy(writer.inner), "waiting: ");
    writer.write_all(b"t%2Dtok").unwrap();
    writer.flush().unwrap();
    assert_eq!(String::from_utf8_lossy(writer.inner), "waiting: ");
    writer.write_all(b"en-0123456789 done").unwrap();
    drop(writer);
    assert_eq!(String::from_utf8(out).unwrap(), format!("waiting: {} done", label("test-token-0123456789")));
}

#[test]
fn a_line_without_end_is_written_in_parts() {
    let mut out = Vec::new();
    let redactor = redactor(&[TOKEN]);
    let mut writer = redactor.writer(&mut out);
    let piece = format!("{}{TOKEN}", "x".repeat(997));
    for _ in 0..1000 {
        writer.write_all(piece.as_bytes()).unwrap();
        assert!(writer.held.len() < 3 * LONG_LINE);
    }
    drop(writer);
    let expected = format!("{}{}", "x".repeat(997), label(TOKEN)).repeat(1000);
    assert!(String::from_utf8(out).unwrap() == expected);
}

#[test]
fn log_events_are_redacted() {
    #[derive(Clone, Default)]
    struct Sink(Arc<std::sync::Mutex<Vec<u8>>>);
    impl Write for Sink {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(buf)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let sink = Sink::default();
    let inner = sink.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(redactor(&[TOKEN]).make_writer(move || inner.clone()))
        .with_ansi(false)
        .finish();
    tracing::subscriber::with_default(subscriber, || tracing::info!(header = ?TOKEN, "sent {TOKEN}"));
    let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.matches(&label(TOKEN)).count(), 2, "{text}");
    assert!(!text.contains("0123456789"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_secret_survives_any_split(
        token in "[!#-&(-~]{8,60}",
        before in "[ -~]{0,40}",
        after in "[ -~\n]{0,40}",
        cuts in proptest::collection::vec((1_usize..20, any::<bool>()), 0..30),
    ) {
        let Ok(value) = SecretValue::new(Zeroizing::new(token.clone().into_bytes())) else { return Ok(()) };
        let redactor = Redactor::new();
        redactor.register(&value);
        let text = format!("{before}{token}{after}");
        let mut out = Vec::new();
        let mut writer = redactor.writer(&mut out);
        let mut rest = text.as_bytes();
        for (length, flush) in cuts {
            let (piece, tail) = rest.split_at(length.min(rest.len()));
            writer.write_all(piece).unwrap();
            if flush {
                writer.flush().unwrap();
            }
            rest = tail;
        }
        writer.write_all(rest).unwrap();
        drop(writer);
        let out = String::from_utf8_lossy(&out).into_owned();
        prop_assert!(!out.contains(&token), "{out}");
        prop_assert!(out.contains(&label(&token)), "{out}");
    }

    #[test]
    fn text_without_the_secret_is_left_alone(text in "[a-z ]{0,200}") {
        let redactor = redactor(&[TOKEN]);
        prop_assert_eq!(redactor.redact(&text), text.as_str());
    }
}
