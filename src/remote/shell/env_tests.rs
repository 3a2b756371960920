//! The editor of environment files against an oracle that never reads one: files are made of known pieces, so what must come
//! out is known without a parser. Every shell must say the same.

use std::path::Path;
use std::process::{Command, Stdio};

use proptest::collection::vec;
use proptest::prelude::*;

const SHELLS: &[&[&str]] = &[&["dash"], &["bash", "--norc"], &["busybox", "ash"]];
const LIBRARY: &str = concat!(
    "KS_CR='\r'\n",
    include_str!("lib/hands.sh"),
    "\n",
    include_str!("lib/base.sh"),
    "\n",
    include_str!("lib/env.sh")
);
const SCRIPT: &str = r#"
cd "$1" && . ./lib.sh || exit 1
shift
ks_env_look "$1" "$2" "$4" <in
printf '%s %s %s' "$KS_COUNT" "$KS_GONE" "$KS_BAD" >look
ks_env_edit "$1" "$2" "$3" "$4" <in >out
ks_env_edit "$1" "$2" "$3" "$4" <out >again
ks_env_revert "$1" ./in $2 $4 <out >back
ks_env_revert "$1" absent $2 $4 <out >without
"#;

const KEY: &str = "TOKEN_FILE";
const VALUE: &str = "/srv/new place/token";
const REMOVE: &str = "INFISICAL_TOKEN";

/// What a piece of a file is to the editor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Target,
    Removed,
    Other,
    Section(&'static str),
}

/// A line with its end, or several that belong together.
#[derive(Debug, Clone)]
struct Piece {
    is: Is,
    /// What stands before the key, for a target.
    head: String,
    text: Vec<u8>,
    end: Vec<u8>,
}

/// What each shell made of a file.
#[derive(Debug, PartialEq, Eq)]
struct Made {
    look: String,
    out: Vec<u8>,
    again: Vec<u8>,
    back: Vec<u8>,
    without: Vec<u8>,
}

fn made(shell: &[&str], format: &str, file: &[u8]) -> Made {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lib.sh"), LIBRARY).unwrap();
    std::fs::write(dir.path().join("in"), file).unwrap();
    let output = Command::new(shell[0])
        .args(&shell[1..])
        .args(["-c", SCRIPT, "-"])
        .arg(dir.path())
        .args([format, KEY, VALUE, REMOVE])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{shell:?}: {output:?}");
    let read = |name: &str| std::fs::read(Path::new(dir.path()).join(name)).unwrap();
    Made {
        look: String::from_utf8(read("look")).unwrap(),
        out: read("out"),
        again: read("again"),
        back: read("back"),
        without: read("without"),
    }
}

/// The oracle: what an edit and its reversal must make of the pieces.
struct Oracle<'a> {
    dropin: bool,
    pieces: &'a [Piece],
}

impl Oracle<'_> {
    fn bytes(pieces: &[Piece]) -> Vec<u8> {
        pieces.iter().flat_map(|piece| [piece.text.as_slice(), &piece.end].concat()).collect()
    }

    fn line(&self) -> String {
        if self.dropin { format!("Environment={KEY}={VALUE}") } else { format!("{KEY}={VALUE}") }
    }

    /// How the last whole line of the pieces ends, without its newline.
    fn style(pieces: &[Piece]) -> Vec<u8> {
        let bytes = Self::bytes(pieces);
        let last = bytes.iter().rposition(|&byte| byte == b'\n').unwrap_or_default();
        if bytes[..last].ends_with(b"\r") { b"\r".to_vec() } else { Vec::new() }
    }

    /// Puts lines where a missing key belongs: at the end of the file, whose last line stays without an end if it had
    /// none. `style` is that of the file before.
    fn add(&self, mut kept: Vec<Piece>, is: Is, text: &[u8], style: &[u8]) -> Vec<Piece> {
        let piece = |text: &[u8], end: &[u8]| Piece { is, head: String::new(), text: text.to_vec(), end: end.to_vec() };
        let mut sections =
            kept.iter().filter_map(|piece| if let Is::Section(name) = piece.is { Some(name) } else { None });
        let section = sections.next_back().unwrap_or_default();
        let whole = [style, b"\n"].concat();
        let mut end = whole.clone();
        if let Some(last) = kept.last_mut().filter(|last| !last.end.ends_with(b"\n")) {
            last.end = if last.end.is_empty() { whole.clone() } else { [last.end.as_slice(), b"\n"].concat() };
            end.clear();
        }
        if self.dropin && section != "Service" {
            kept.push(Piece {
                is: Is::Section("Service"),
                head: String::new(),
                text: b"[Service]".to_vec(),
                end: whole,
            });
        }
        kept.push(piece(text, &end));
        kept
    }

    fn edited(&self) -> Vec<Piece> {
        let mut out = Vec::new();
        let mut found = false;
        for piece in self.pieces {
            match piece.is {
                Is::Target if found => {}
                Is::Target => {
                    found = true;
                    let head = if self.dropin { "" } else { &piece.head };
                    out.push(Piece { text: format!("{head}{}", self.line()).into_bytes(), ..piece.clone() });
                }
                Is::Removed => {}
                _ => out.push(piece.clone()),
            }
        }
        if found { out } else { self.add(out, Is::Target, self.line().as_bytes(), &Self::style(self.pieces)) }
    }

    /// After an edit: each key's lines as they were, everything else as the edit left it.
    fn reverted(&self) -> Vec<Piece> {
        let mut now = self.edited();
        for key in [Is::Target, Is::Removed] {
            let style = Self::style(&now);
            let lines: Vec<&Piece> = self.pieces.iter().filter(|piece| piece.is == key).collect();
            let mut text = Vec::new();
            for (n, piece) in lines.iter().enumerate() {
                text.extend_from_slice(&piece.text);
                if n + 1 < lines.len() {
                    text.extend_from_slice(&piece.end);
                }
            }
            match now.iter().position(|piece| piece.is == key) {
                Some(at) if lines.is_empty() => {
                    now.remove(at);
                }
                Some(at) => now[at].text = text,
                None if lines.is_empty() => {}
                None => now = self.add(now, key, &text, &style),
            }
        }
        now
    }
}

/// Any bytes but NUL and line end, so that nothing depends on them being text. The last one is harmless.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => 0x20u8..0x7f, 1 => prop_oneof![1u8..10, 11u8..13, 14u8..0x20], 3 => 0x7fu8..=0xff];
    vec(byte, 0..12).prop_map(|mut bytes| {
        bytes.push(b'.');
        bytes
    })
}

/// A value as it stands in the file, on one line: bare, or in quotes that close.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let bare = bytes().prop_map(|bytes| {
        let first = bytes.iter().position(|byte| !b" \t".contains(byte));
        if first.is_some_and(|at| b"\"'".contains(&bytes[at])) { [b"x", bytes.as_slice()].concat() } else { bytes }
    });
    let single = bytes().prop_map(|bytes| [b"'", bytes.replaced(b'\'', b"_").as_slice(), b"'"].concat());
    let double = bytes().prop_map(|bytes| {
        let escaped = bytes.replaced(b'\\', b"\\\\").replaced(b'"', b"\\\"");
        [b"\"", escaped.as_slice(), b"\""].concat()
    });
    prop_oneof![
        4 => bare,
        1 => single,
        2 => double,
        1 => Just(b"ends in two\\\\".to_vec()),
        1 => Just(b"\"ends in two\\\\\"".to_vec()),
        1 => Just(b"  \"blanks before\"".to_vec()),
        1 => Just(Vec::new()),
    ]
}

trait Replaced {
    fn replaced(&self, from: u8, to: &[u8]) -> Vec<u8>;
}

impl Replaced for [u8] {
    fn replaced(&self, from: u8, to: &[u8]) -> Vec<u8> {
        self.iter().flat_map(|&byte| if byte == from { to.to_vec() } else { vec![byte] }).collect()
    }
}

fn line_end() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![3 => Just(b"\n".to_vec()), 2 => Just(b"\r\n".to_vec())]
}

fn piece(is: Is, head: &str, text: Vec<u8>, end: Vec<u8>) -> Piece {
    Piece { is, head: head.to_owned(), text, end }
}

fn dotenv_piece() -> impl Strategy<Value = Piece> {
    let head = prop_oneof![Just(""), Just("  "), Just("export "), Just("\texport \t"), Just("export\t")];
    let blanks = prop_oneof![4 => Just(""), 1 => Just(" "), 1 => Just("\t ")];
    let others = prop_oneof![Just("A"), Just("TOKEN_FILE2"), Just("MY_TOKEN_FILE"), Just("export"), Just("token_file")];
    let key = prop_oneof![
        3 => Just((Is::Target, KEY)),
        2 => Just((Is::Removed, REMOVE)),
        6 => others.prop_map(|key| (Is::Other, key)),
    ];
    let assigned = (head, key, blanks, value(), line_end()).prop_map(|(head, (is, key), blanks, value, end)| {
        piece(is, head, [head.as_bytes(), key.as_bytes(), blanks.as_bytes(), b"=", &value].concat(), end)
    });
    let plain = prop_oneof![
        bytes().prop_map(|bytes| [b"#", bytes.as_slice()].concat()),
        Just(format!("  # {KEY}=/in/a/comment").into_bytes()),
        Just(format!("; {KEY}=/in/a/comment \"").into_bytes()),
        Just(format!("#{KEY}=/in/a/comment").into_bytes()),
        Just(Vec::new()),
        Just(b" \t ".to_vec()),
        Just(KEY.as_bytes().to_vec()),
        Just(format!("{KEY}: no assignment").into_bytes()),
        Just(format!("un set {KEY}=/x").into_bytes()),
    ];
    let plain = (plain, line_end()).prop_map(|(text, end)| piece(Is::Other, "", text, end));
    let spans = prop_oneof![
        Just(format!("A=\"one\n{KEY}=/within\n# two\\\"\n{REMOVE}=x\nend\"")),
        Just(format!("A='one\n{KEY}=/within\\\nend'")),
        Just(format!("  export A= \"say \\\"\n{KEY}=/within\n\"")),
        Just(format!("A=one\\\n{KEY}=/within\\\n{REMOVE}=x")),
        Just(format!("A=\"closed\"\\\n{KEY}=/within")),
        Just(format!("A=\\\\\\\n{KEY}=/within")),
    ];
    let spans =
        (spans, line_end()).prop_map(|(text, end)| piece(Is::Other, "", text.into_bytes().replaced(b'\n', &end), end));
    prop_oneof![5 => assigned, 3 => plain, 2 => spans]
}

fn dropin_piece() -> impl Strategy<Value = Piece> {
    let text = prop_oneof![
        2 => Just((Is::Section("Service"), "[Service]")),
        1 => Just((Is::Section("Unit"), "[Unit]")),
        1 => Just((Is::Section("Install"), "[Install]")),
        3 => Just((Is::Target, "Environment=TOKEN_FILE=/old/place")),
        2 => Just((Is::Target, "Environment=\"TOKEN_FILE=/old place\"")),
        1 => Just((Is::Target, " Environment ='TOKEN_FILE=/old place'")),
        2 => Just((Is::Removed, "Environment=INFISICAL_TOKEN=x")),
        3 => Just((Is::Other, "Environment=OTHER=1 A=2 \"B=3 4\"")),
        2 => Just((Is::Other, "Environment=\"OTHER=\u{fc}\u{20ac} 1\"")),
        1 => Just((Is::Other, "Environment=")),
        1 => Just((Is::Other, "EnvironmentFile=-/etc/default/runner")),
        1 => Just((Is::Other, "# Environment=TOKEN_FILE=/in/a/comment \\")),
        1 => Just((Is::Other, "; Environment=TOKEN_FILE=/in/a/comment")),
        2 => Just((Is::Other, "ExecStart=/bin/runner \\\n  Environment=TOKEN_FILE=/an/argument \\\n# in between\n --end")),
        1 => Just((Is::Other, "Environment=OTHER=1 \\\n A=2")),
        1 => Just((Is::Other, "")),
    ];
    (text, line_end()).prop_map(|((is, text), end)| piece(is, "", text.as_bytes().replaced(b'\n', &end), end))
}

/// The last line may lack its end, or have but half of one.
fn file(piece: impl Strategy<Value = Piece>) -> impl Strategy<Value = Vec<Piece>> {
    (vec(piece, 0..12), prop_oneof![3 => Just(None), 2 => Just(Some(Vec::new())), 1 => Just(Some(b"\r".to_vec()))])
        .prop_map(|(mut pieces, end)| {
            if let (Some(end), Some(last)) = (end, pieces.last_mut()) {
                // Nothing without an end is not a line at all.
                if !last.text.is_empty() {
                    last.end = end;
                }
            }
            pieces
        })
}

/// Outside of [Service] nothing is a target, and a name in it is nobody's.
fn in_sections(mut pieces: Vec<Piece>) -> Vec<Piece> {
    let mut section = "";
    for piece in &mut pieces {
        match piece.is {
            Is::Section(name) => section = name,
            _ if section != "Service" => piece.is = Is::Other,
            _ => {}
        }
    }
    pieces
}

fn check(format: &str, pieces: &[Piece]) -> Result<(), TestCaseError> {
    let oracle = Oracle { dropin: format == "dropin", pieces };
    let count = |is: Is| pieces.iter().filter(|piece| piece.is == is).count();
    let file = Oracle::bytes(pieces);
    let edited = Oracle::bytes(&oracle.edited());
    let reverted = Oracle::bytes(&oracle.reverted());
    if count(Is::Target) == 1 && count(Is::Removed) == 0 {
        prop_assert_eq!(&reverted, &file, "the oracle itself");
    }
    for shell in SHELLS {
        let made = made(shell, format, &file);
        let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let said = format!("{shell:?}\nin   {}\nout  {}\nwant {}", show(&file), show(&made.out), show(&edited));
        prop_assert_eq!(&made.look, &format!("{} {} ", count(Is::Target), count(Is::Removed)), "{}", said);
        prop_assert!(made.out == edited, "{}", said);
        prop_assert!(made.again == made.out, "not idempotent: {}\nthen {}", said, show(&made.again));
        let said = format!("{said}\nback {}\nwant {}", show(&made.back), show(&reverted));
        prop_assert!(made.back == reverted, "{}", said);
        let without = made.without.windows(KEY.len() + 2).filter(|at| *at == format!("\n{KEY}=").as_bytes()).count();
        let decoys = file.windows(KEY.len() + 2).filter(|at| *at == format!("\n{KEY}=").as_bytes()).count();
        prop_assert!(without <= decoys, "{}\nwithout {}", said, show(&made.without));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_env_file_keeps_every_other_byte(pieces in file(dotenv_piece())) {
        check("dotenv", &pieces)?;
    }

    #[test]
    fn a_drop_in_keeps_every_other_byte(pieces in file(dropin_piece())) {
        check("dropin", &in_sections(pieces))?;
    }
}

#[test]
fn what_cannot_be_edited_by_line_is_refused() {
    for (format, file, why) in [
        ("dotenv", "TOKEN_FILE=\"one\ntwo\"\n", "the value of TOKEN_FILE goes over several lines"),
        ("dotenv", "A=1\nINFISICAL_TOKEN=one\\\ntwo\n", "the value of INFISICAL_TOKEN goes over several lines"),
        ("dotenv", "A=\"never ends\nTOKEN_FILE=/x\n", "a quoted value does not end"),
        ("dotenv", "A='never ends\\'\nTOKEN_FILE=/x\nB='\n", "a quoted value does not end"),
        ("dotenv", "A=ends in a backslash\\", "a quoted value does not end"),
        (
            "dropin",
            "[Service]\nEnvironment=A=1 TOKEN_FILE=/x\n",
            "one line sets TOKEN_FILE together with other variables",
        ),
        (
            "dropin",
            "[Service]\nEnvironment=TOKEN_FILE=/x \\\n A=1\n",
            "the value of TOKEN_FILE goes over several lines",
        ),
        (
            "dropin",
            "[Service]\nEnvironment=A=1 \\\n# said\n \"TOKEN_FILE=/x\"\n",
            "one line sets TOKEN_FILE together with other variables",
        ),
    ] {
        for shell in SHELLS {
            let look = made(shell, format, file.as_bytes()).look;
            assert!(look.ends_with(why), "{shell:?} {file:?}: {look}");
        }
    }
}

/// What stood in the file itself is known by its digest, and only where it can be a credential.
#[test]
fn credentials_in_the_file_are_told_by_their_fingerprints() {
    const ASK: &str = r#"
cd "$1" && . ./lib.sh || exit 1
ks_env_look "$2" TOKEN_FILE "INFISICAL_TOKEN API_URL MODE" <in
echo "${KS_CREDENTIALS# }"
ks_env_holds "$3" "$2" <in && echo held
ks_env_holds "$4" "$2" <in || echo not
ks_env_holds '' "$2" <in || echo none
"#;
    let print = |text: &str| crate::model::Fingerprint::of(text.as_bytes()).hex().to_owned();
    let (inline, pointed) = ("test-token-inline.a.b", "test-token-as-pointer==");
    let dotenv = format!(
        "A=1\nTOKEN_FILE={pointed}\nexport INFISICAL_TOKEN=\"{inline}\"\r\nAPI_URL=https://infisical.example.net\nMODE=short\n\
         OTHER=test-token-of-another-key\n"
    );
    let dropin = format!(
        "[Service]\nEnvironment=TOKEN_FILE={pointed}\nEnvironment=\"INFISICAL_TOKEN={inline}\"\n\
         Environment=MODE=a-word-and another\n"
    );
    for shell in SHELLS {
        for (format, file) in [("dotenv", &dotenv), ("dropin", &dropin)] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("lib.sh"), LIBRARY).unwrap();
            std::fs::write(dir.path().join("in"), file).unwrap();
            let output = Command::new(shell[0])
                .args(&shell[1..])
                .args(["-c", ASK, "-"])
                .arg(dir.path())
                .args([format, &format!("{} {}", print("x"), print(inline)), &print("test-token")])
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let said = String::from_utf8(output.stdout).unwrap();
            let wanted = format!("{} {}\nheld\nnot\nnone\n", print(pointed), print(inline));
            assert_eq!(said, wanted, "{shell:?} {format}: {:?}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
