use super::*;
use crate::journal::Entry;
use crate::report::story::tests::{mixed, tell};

fn made(entries: Vec<Entry>) -> String {
    page(&tell(entries, false), &Redactor::new()).unwrap()
}

/// The names of all tags, in order; also whether an attribute's value holds what it should not.
fn tags(page: &str) -> Vec<String> {
    let mut tags = Vec::new();
    for part in page.split('<').skip(1) {
        let (tag, _) = part.split_once('>').unwrap_or((part, ""));
        tags.push(tag.split([' ', '\n']).next().unwrap_or_default().to_owned());
    }
    tags
}

/// Every text of the entries that a host or a person could have chosen.
fn poisoned(poison: &str) -> Vec<Entry> {
    let texts = [
        "detail", "intent", "reason", "text", "comment", "signer", "summary", "probe", "expected", "got", "label",
        "playbook", "user", "version", "path", "machine", "what", "plan", "key",
    ];
    fn walk(value: &mut serde_json::Value, texts: &[&str], poison: &str) {
        match value {
            serde_json::Value::Array(items) => items.iter_mut().for_each(|item| walk(item, texts, poison)),
            serde_json::Value::Object(fields) => {
                for (key, field) in fields {
                    match field {
                        serde_json::Value::String(text) if texts.contains(&key.as_str()) => *text = poison.to_owned(),
                        serde_json::Value::Array(items) if ["mend", "notes", "seen"].contains(&key.as_str()) => {
                            *items = vec![poison.into()];
                        }
                        field => walk(field, texts, poison),
                    }
                }
            }
            _ => {}
        }
    }
    let poison = |entry: Entry| {
        let mut value = serde_json::to_value(entry).unwrap();
        walk(&mut value, &texts, poison);
        serde_json::from_value(value).unwrap()
    };
    mixed().into_iter().map(poison).collect()
}

#[test]
fn hostile_text_stays_text() {
    let harmless = tags(&made(poisoned("harmless")));
    for poison in [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "' onmouseover='alert(1)",
        "</style></pre></table><h1>",
        "{{ 7 * 7 }}{% for x in s %}",
        "<!-- ]]> <svg/onload=alert(1)>",
        "&lt;b&gt; & &amp",
        "\u{1b}[31m<b>\u{0}\u{202e}\u{7f}",
    ] {
        let page = made(poisoned(poison));
        assert_eq!(tags(&page), harmless, "{poison:?} makes no tag");
        assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("onerror=alert(1)>"));
        assert!(!page.contains("49{%"), "it is no template");
        assert!(!page.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{poison:?}");
    }
    // What stands between backticks is set as code, and escaped all the same.
    assert_eq!(code("a `<b>` `c"), "a <code>&lt;b&gt;</code> `c");
    assert_eq!(code("`a``b`"), "<code>a</code><code>b</code>");
}

#[test]
fn the_page_needs_nothing_but_itself_and_allows_nothing_else() {
    let page = made(mixed());
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    let policy =
        format!("content=\"default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'\"");
    assert!(page.contains(&policy), "the policy names the style sheet as it stands there");
    assert!(page.contains(&format!("<style>{STYLE}</style>")));
    for outside in ["<script", "<link", "<img", "<iframe", "<form", "@import", "url(h", " style=", " on"] {
        let found = page.match_indices(outside).filter(|(at, _)| {
            // In a tag, not in a text.
            let before = page.get(..*at).unwrap_or_default();
            outside.starts_with('<') || outside.starts_with('@') || before.rfind('<') > before.rfind('>')
        });
        assert_eq!(found.count(), 0, "{outside}");
    }
}

#[test]
fn times_are_told_for_people() {
    assert_eq!(took(0), "0 ms");
    assert_eq!(took(999), "999 ms");
    assert_eq!(took(1_240), "1.2 s");
    assert_eq!(took(59_900), "59 s");
    assert_eq!(took(61_000), "1 min 1 s");
    assert_eq!(took(3_660_000), "1 h 1 min");
    assert_eq!(took(90_000_000), "1 d 1 h");
    assert_eq!(took(-5), "0 ms", "clocks may be set back");
}

#[test]
fn lanes_stay_on_their_axis() {
    let story = tell(mixed(), false);
    let lanes = lanes::lanes(&story);
    assert_eq!((lanes.hosts.len(), lanes.breaks.len(), lanes.commits.len()), (story.hosts.len(), 1, 1));
    let at = lanes.breaks[0];
    let all = lanes.hosts.iter().flatten().chain(&lanes.run);
    for piece in all {
        assert!(piece.x >= 0.0 && piece.w > 0.0 && piece.x + piece.w <= 1000.1, "{piece:?}");
        assert!(piece.x >= at || piece.x + piece.w <= at + 3.0, "none reaches over the break at {at}: {piece:?}");
    }
    let late: Vec<&str> = lanes.hosts[3].iter().filter(|piece| piece.x > at).map(|piece| piece.kind).collect();
    assert_eq!(late, ["undo"], "the second sitting has but the way back");
}
