//! The table of what OpenSSH would say, and properties that hold for any text.

use proptest::prelude::*;
use russh::keys::ssh_encoding::base64::{Base64, Encoding};

use super::*;
use crate::testing::Fuzz;

/// A key of some type that differs by its last byte.
fn key(kind: &str, last: u8) -> HostKey {
    let mut blob = u32::try_from(kind.len()).unwrap().to_be_bytes().to_vec();
    blob.extend(kind.as_bytes());
    blob.extend([0, 0, 0, 1, last]);
    HostKey::from_blob(blob).unwrap()
}

fn ed(last: u8) -> HostKey {
    key("ssh-ed25519", last)
}

fn known(text: &str) -> KnownHosts {
    let mut known = KnownHosts::default();
    known.add("kh".into(), text.as_bytes()).unwrap();
    known
}

#[derive(Debug, PartialEq)]
enum Short {
    Yes(usize),
    Unknown,
    Authority,
    Changed(usize),
    Revoked(usize),
}

fn check(text: &str, host: &str, port: u16, offered: &HostKey) -> Short {
    match known(text).check(&Endpoint::new(host, port), offered) {
        Verdict::Trusted(place) => Short::Yes(place.line),
        Verdict::Unknown { authority: false } => Short::Unknown,
        Verdict::Unknown { authority: true } => Short::Authority,
        Verdict::Changed { place, .. } => Short::Changed(place.line),
        Verdict::Revoked(place) => Short::Revoked(place.line),
    }
}

#[test]
fn the_table() {
    use Short::{Authority, Changed, Revoked, Unknown, Yes};
    let (a, b, rsa, sk) = (ed(1), ed(2), key("ssh-rsa", 1), key("sk-ssh-ed25519@openssh.com", 1));
    let cases: Vec<(&str, String, &str, u16, Short)> = vec![
        ("empty file", String::new(), "h1", 22, Unknown),
        ("exact", format!("h1 {a}"), "h1", 22, Yes(1)),
        ("comment after the key", format!("h1 {a} root@h1 # x"), "h1", 22, Yes(1)),
        ("another host", format!("h2 {a}"), "h1", 22, Unknown),
        ("name is a prefix", format!("h1 {a}"), "h10", 22, Unknown),
        ("comma list", format!("h0,h1,192.0.2.1 {a}"), "h1", 22, Yes(1)),
        ("comma list, address", format!("h0,h1,192.0.2.1 {a}"), "192.0.2.1", 22, Yes(1)),
        ("letter case of the file", format!("H1.Example.NET {a}"), "h1.example.net", 22, Yes(1)),
        ("letter case of the inventory", format!("h1.example.net {a}"), "H1.Example.net", 22, Yes(1)),
        ("tabs and leading blanks", format!(" \th1\t\tssh-ed25519 \t{}", &a.to_string()[12..]), "h1", 22, Yes(1)),
        ("carriage return", format!("h1 {a}\r\n"), "h1", 22, Yes(1)),
        ("port", format!("[h1]:2222 {a}"), "h1", 2222, Yes(1)),
        ("port in the file, not dialled", format!("[h1]:2222 {a}"), "h1", 22, Unknown),
        ("another port", format!("[h1]:2222 {a}"), "h1", 2223, Unknown),
        ("bare name serves any port", format!("h1 {a}"), "h1", 2222, Yes(1)),
        ("bare name with another key proves nothing", format!("h1 {b}"), "h1", 2222, Unknown),
        ("port line beats bare name", format!("h1 {a}\n[h1]:2222 {b}"), "h1", 2222, Changed(2)),
        ("IPv6", format!("2001:db8::1 {a}"), "2001:0db8:0::1", 22, Yes(1)),
        ("IPv6 with port", format!("[2001:db8::1]:2222 {a}"), "2001:db8::1", 2222, Yes(1)),
        ("star", format!("*.example.net {a}"), "h1.example.net", 22, Yes(1)),
        ("star does not match the bare domain", format!("*.example.net {a}"), "example.net", 22, Unknown),
        ("question mark", format!("h? {a}"), "h1", 22, Yes(1)),
        ("question mark is one character", format!("h? {a}"), "h10", 22, Unknown),
        ("star with port", format!("[*.example.net]:2222 {a}"), "h1.example.net", 2222, Yes(1)),
        ("negation first", format!("!h1,* {a}"), "h1", 22, Unknown),
        ("negation last", format!("*,!h1 {a}"), "h1", 22, Unknown),
        ("negation of another", format!("!h1,* {a}"), "h2", 22, Yes(1)),
        ("negation alone matches nobody", format!("!h1 {a}"), "h2", 22, Unknown),
        ("changed", format!("# c\n\nh1 {b}"), "h1", 22, Changed(3)),
        ("second line of a rotation", format!("h1 {b}\nh1 {a}"), "h1", 22, Yes(2)),
        ("several types", format!("h1 {rsa}\nh1 {a}"), "h1", 22, Yes(2)),
        ("only another type recorded", format!("h1 {rsa}"), "h1", 22, Changed(1)),
        ("the same type is named first", format!("h1 {rsa}\nh1 {b}"), "h1", 22, Changed(2)),
        ("a type we cannot use is still recorded", format!("h1 {sk}"), "h1", 22, Changed(1)),
        ("revoked", format!("@revoked h1 {a}"), "h1", 22, Revoked(1)),
        ("revoked beats a plain line before it", format!("h1 {a}\n@revoked * {a}"), "h1", 22, Revoked(2)),
        ("revoked bare name covers a port", format!("[h1]:22 {a}\n@revoked h1 {a}"), "h1", 2222, Revoked(2)),
        ("another key revoked", format!("@revoked h1 {b}\nh1 {a}"), "h1", 22, Yes(2)),
        ("revoked elsewhere", format!("@revoked h2 {a}\nh1 {a}"), "h1", 22, Yes(2)),
        ("only a revoked line, other key", format!("@revoked h1 {b}"), "h1", 22, Unknown),
        ("authority is no plain key", format!("@cert-authority * {a}"), "h1", 22, Authority),
        ("authority beside a plain line", format!("@cert-authority * {b}\nh1 {a}"), "h1", 22, Yes(2)),
        ("authority of others", format!("@cert-authority *.example.net {a}"), "h1", 22, Unknown),
        ("unknown marker", format!("@trusted h1 {a}"), "h1", 22, Unknown),
        ("damaged Base64, then a good line", format!("h1 ssh-ed25519 AAAA*\nh1 {a}"), "h1", 22, Yes(2)),
        ("type differs from the key's", format!("h1 ssh-rsa {}", &a.to_string()[12..]), "h1", 22, Unknown),
        ("no key", "h1 ssh-ed25519\nh1\nh1 ".to_owned(), "h1", 22, Unknown),
        ("protocol 1", "h1 1024 35 1234567".to_owned(), "h1", 22, Unknown),
        ("commented out", format!("#h1 {a}"), "h1", 22, Unknown),
        ("empty pattern", format!(", {a}"), "h1", 22, Unknown),
    ];
    for (what, text, host, port, expected) in cases {
        assert_eq!(check(&text, host, port, &a), expected, "{what}");
    }
}

/// Lines made by `ssh-keygen -H`.
const HASHED: &str = "\
|1|ZhUwjbXh5084bLQ0iEMsiowYkhA=|278SCFNOi+SRh35TCPuI/wTxtvc= ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKRvjYUutv9temXgSg4rF0NRV/pdiWYXiSCFObjqCQcS
|1|k1pYYvFns1OUjAReOa9Nv6qJ08c=|Qq1XzBdUAC5SetQKypYbP1ocQTI= ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKRvjYUutv9temXgSg4rF0NRV/pdiWYXiSCFObjqCQcS
";

#[test]
fn hashed_names_are_those_of_openssh() {
    let key = HostKey::from_line(HASHED.lines().next().unwrap().split_once(' ').unwrap().1).unwrap();
    assert_eq!(key.fingerprint(), "SHA256:8hL+WLrCt8C/HBeM+6CaVObfEckz8iXPojalxCi4NCk");
    assert_eq!(check(HASHED, "h1.example.net", 22, &key), Short::Yes(1));
    assert_eq!(check(HASHED, "H1.EXAMPLE.net", 2222, &key), Short::Yes(2));
    assert_eq!(check(HASHED, "h1.example.net", 2222, &ed(1)), Short::Changed(2));
    assert_eq!(check(HASHED, "h2.example.net", 22, &key), Short::Unknown);
    for damaged in ["|1|x", "|1||", "|2|aa==|bb==", "|1|Zh*=|27==", "|"] {
        assert_eq!(check(&format!("{damaged} {key}"), "h1", 22, &key), Short::Unknown, "{damaged}");
    }
}

#[test]
fn recorded_types_come_in_file_order() {
    let text = format!("h1 {}\nh1 {}\n@cert-authority * {}\nh1 {}", key("ssh-rsa", 1), ed(1), key("x", 1), ed(2));
    assert_eq!(known(&text).kinds(&Endpoint::new("h1", 22)), ["ssh-rsa", "ssh-ed25519"]);
    assert_eq!(known(&text).kinds(&Endpoint::new("h1", 2222)), ["ssh-rsa", "ssh-ed25519"]);
    assert!(known(&text).kinds(&Endpoint::new("h2", 22)).is_empty());
}

#[test]
fn several_files_are_one_and_a_missing_one_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let dir = Utf8Path::from_path(dir.path()).unwrap();
    let (user, global, none) = (dir.join("user"), dir.join("global"), dir.join("none"));
    std::fs::write(&user, format!("h1 {}\n", ed(1))).unwrap();
    std::fs::write(&global, format!("garbage\n@revoked h1 {}\nh1 {}\n", ed(1), ed(2))).unwrap();
    let all = KnownHosts::read(&[user, none, global.clone()]).unwrap();
    let h1 = Endpoint::new("h1", 22);
    let place = |line| Place { file: global.clone(), line };
    assert_eq!(all.check(&h1, &ed(1)), Verdict::Revoked(place(2)));
    assert_eq!(all.check(&h1, &ed(2)), Verdict::Trusted(place(3)));
    assert_eq!(all.notes(), [Note { place: place(1), why: "the key is missing" }]);
    assert!(KnownHosts::read(&[dir.to_owned()]).is_err(), "a file that is there and cannot be read is an error");
}

#[test]
fn an_accepted_key_is_added_and_nothing_else_changes() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let file = Utf8Path::from_path(dir.path()).unwrap().join("home/.ssh/known_hosts");
    let (h1, h2) = (Endpoint::new("H1", 22), Endpoint::new("h2", 2222));
    assert!(learn(&file, &h1, &ed(1)).unwrap());
    assert!(!learn(&file, &h1, &ed(1)).unwrap(), "once is enough");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("h1 {}\n", ed(1)));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let before = format!("# mine\r\n\n\tgarbage \nh1 {}", ed(3));
    std::fs::write(&file, &before).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let link = file.with_file_name("link");
    std::os::unix::fs::symlink("known_hosts", &link).unwrap();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (link, h2) = (&link, &h2);
            scope.spawn(move || assert!(learn(link, h2, &ed(n)).unwrap()));
        }
    });
    let after = std::fs::read_to_string(&file).unwrap();
    assert!(after.starts_with(&format!("{before}\n[h2]:2222 ")), "{after}");
    assert_eq!(after.lines().count(), before.lines().count() + 8, "no writer loses another's line");
    assert!(link.is_symlink());
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    let all = KnownHosts::read(std::slice::from_ref(&file)).unwrap();
    assert!((0..8).all(|n| matches!(all.check(&h2, &ed(n)), Verdict::Trusted(_))));
    assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 2, "nothing is left beside it");
}

#[test]
fn what_stands_after_a_key_may_be_any_bytes_and_nul_ends_a_line() {
    let a = ed(1);
    let h1 = Endpoint::new("h1", 22);
    let long = "x".repeat(100_000);
    for (what, line) in [
        ("a comment in Latin-1", [format!("@revoked * {a} M").as_bytes(), b"\xfcller"].concat()),
        ("a very long comment", format!("@revoked * {a} {long}").into_bytes()),
        ("very many names", format!("@revoked {long},h1 {a}").into_bytes()),
        ("a name in Latin-1 beside", [b"@revoked m\xfcller,h1 ".as_slice(), a.to_string().as_bytes()].concat()),
        ("NUL after the key", format!("@revoked h1 {a}\0 more").into_bytes()),
    ] {
        let mut known = KnownHosts::default();
        known.add("kh".into(), &[line.as_slice(), format!("\nh1 {a}\n").as_bytes()].concat()).unwrap();
        assert!(matches!(known.check(&h1, &a), Verdict::Revoked(_)), "{what}");
    }
}

#[test]
fn a_revocation_that_cannot_be_read_is_an_error_with_its_line() {
    let a = ed(1);
    let dir = tempfile::tempdir().unwrap();
    let file = Utf8Path::from_path(dir.path()).unwrap().join("kh");
    for line in [
        "@revoked".to_owned(),
        "@revoked *".to_owned(),
        "@revoked * ssh-ed25519".to_owned(),
        "@revoked * ssh-ed25519 AAAA*".to_owned(),
        format!("@revoked * ssh-rsa {}", &a.to_string()[12..]),
        format!("@revoked |1|damaged {a}"),
        format!("@revoked\0 * {a}"),
        format!("@REVOKED * {a}"),
        format!("@cert-authority @revoked * {a}"),
    ] {
        std::fs::write(&file, format!("h1 {a}\n{line}\nh1 {a}\n")).unwrap();
        let error = KnownHosts::read(std::slice::from_ref(&file)).unwrap_err();
        assert!(error.file == file && error.source.to_string().starts_with("line 2 is marked as @revoked"), "{line}");
    }
}

/// The definition that the loop in [`pattern::matches`] must agree with.
fn matches_by_definition(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|n| matches_by_definition(rest, &text[n..])),
        ([p, rest @ ..], [t, more @ ..]) if *p == b'?' || p == t => matches_by_definition(rest, more),
        _ => false,
    }
}

#[test]
fn fuzz_known_hosts() {
    let fuzz = Fuzz::new("known_hosts, any bytes");
    fuzz.run(&prop::collection::vec(any::<u8>(), 0..400), |bytes| {
        let mut known = KnownHosts::default();
        let read = known.add("kh".into(), &bytes);
        let _ = known.check(&Endpoint::new("h1", 2222), &ed(1));
        if read.is_ok() { "read" } else { "refused whole" }
    });
    let whole = format!(" {}\n", ed(1));
    let parts = [
        "@revoked",
        "@cert-authority",
        "@",
        "h1",
        "[h1]:2222",
        "*",
        "!h1",
        "|1|",
        "|1|aGk=|aGk=",
        ",",
        " ",
        "\t",
        "\n",
        "ssh-ed25519",
        "ssh-rsa",
        "AAAA",
        "AAAAC3NzaC1lZDI1NTE5AAAAAQ==",
        "=",
        "#",
        "\u{e9}",
        "\0",
    ];
    // Whole keys often enough that many files have a line.
    let parts = prop_oneof![3 => prop::sample::select(parts.map(str::to_owned).to_vec()), 1 => Just(whole)];
    let real = Fuzz::new("known_hosts, real parts");
    real.run(&prop::collection::vec(parts, 0..24), |parts| {
        let mut known = KnownHosts::default();
        // A damaged revocation is an error, and what else stands there is still read.
        let read = known.add("kh".into(), parts.concat().as_bytes());
        for port in [22, 2222] {
            let verdict = known.check(&Endpoint::new("h1", port), &ed(7));
            assert!(!matches!(verdict, Verdict::Trusted(_) | Verdict::Revoked(_)), "{verdict:?}");
        }
        match (read, known.lines.len()) {
            (Err(_), _) => "refused whole",
            (Ok(()), 0) => "without a line",
            (Ok(()), _) => "with lines, none trusted",
        }
    });
}

/// `h1`, hashed.
const HASHED_H1: &str = "|1|c2FsdA==|Jj1CLwac++Wy3FPgIR0TcavW0Kg=";

/// What an index finds is what a look at every line finds, in the same order.
#[test]
fn fuzz_known_hosts_by_name() {
    let hosts = prop::sample::select(vec![
        "h1",
        "h2",
        "[h1]:2222",
        "H1",
        "h*",
        "*",
        "h?",
        "!h1",
        "*,!h1",
        "h1,h2",
        "h1,H1,h1",
        "h2,*",
    ]);
    let hashed = prop::bool::weighted(0.2);
    let mark = prop::sample::select(vec!["", "", "", "@revoked ", "@cert-authority "]);
    let line = (mark, hosts, hashed, 0_u8..4).prop_map(|(mark, hosts, hashed, last)| {
        let hosts = if hashed { HASHED_H1.to_owned() } else { hosts.to_owned() };
        format!("{mark}{hosts} {}\n", ed(last))
    });
    let fuzz = Fuzz::new("known_hosts, by name and one by one");
    fuzz.run(&prop::collection::vec(line, 0..12), |lines| {
        let known = known(&lines.concat());
        for name in ["h1", "h2", "[h1]:2222", "h3", ""] {
            let all: Vec<usize> = (0..known.lines.len()).filter(|at| known.lines[*at].hosts.cover(name)).collect();
            // The second answer is a remembered one.
            assert_eq!((known.covering(name), known.covering(name)), (all.clone(), all), "{name}: {lines:?}");
        }
        "agree"
    });
}

#[test]
fn a_fleet_s_lines_are_found_and_not_looked_through() {
    let fleet: String = (0..3000).map(|n| format!("h{n},192.0.2.{n} {}\n", ed(1))).collect();
    let known = known(&format!("{fleet}@revoked * {}\n", ed(9)));
    assert_eq!((known.to_look_at.len(), known.lines.len()), (1, 3001));
    for n in 0..3000 {
        let at = known.check(&Endpoint::new(&format!("h{n}"), 22), &ed(1));
        assert!(matches!(at, Verdict::Trusted(Place { line, .. }) if line == n + 1));
    }
}

proptest! {
    #[test]
    fn patterns_mean_what_the_definition_says(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
        prop_assert_eq!(pattern::matches(pattern.as_bytes(), text.as_bytes()), matches_by_definition(pattern.as_bytes(), text.as_bytes()));
    }

    #[test]
    fn a_key_survives_being_written_down(kind in "[a-z0-9@.-]{1,40}", rest in prop::collection::vec(any::<u8>(), 1..80)) {
        let mut blob = u32::try_from(kind.len()).unwrap().to_be_bytes().to_vec();
        blob.extend(kind.as_bytes());
        blob.extend(&rest);
        let key = HostKey::from_blob(blob).unwrap();
        prop_assert_eq!(HostKey::from_line(&format!("{key} comment")).unwrap(), key);
    }

    #[test]
    fn damaged_keys_are_refused(blob in prop::collection::vec(any::<u8>(), 0..12)) {
        // A length that reaches past the end, nothing after the type, or a type that cannot be shown.
        if let Ok(key) = HostKey::from_blob(blob.clone()) {
            prop_assert!(HostKey::parse(key.kind(), &Base64::encode_string(&blob)).is_ok());
            prop_assert!(key.kind().bytes().all(|b| b.is_ascii_graphic()));
        }
    }
}
