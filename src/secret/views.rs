//! Text as it reads once its escapes are undone, with the way back to where each byte stood.

use std::borrow::Cow;

use zeroize::Zeroizing;

/// A text, or what it means when percent or backslash escapes in it are undone.
pub(super) struct View<'a> {
    bytes: Bytes<'a>,
    /// Where each byte began in the text; one more for the end. `None`: they are the text's own.
    places: Option<Vec<usize>>,
}

enum Bytes<'a> {
    Own(&'a [u8]),
    Undone(Zeroizing<Vec<u8>>),
}

/// One escape: how many bytes it takes, and what it stands for.
type Undo = fn(&[u8]) -> Option<(usize, Cow<'static, [u8]>)>;

impl<'a> View<'a> {
    /// The text itself, then without percent escapes, then without backslash escapes; each twice over, for what
    /// was escaped inside something escaped.
    pub(super) fn all(text: &'a [u8]) -> Vec<Self> {
        let mut views = vec![Self { bytes: Bytes::Own(text), places: None }];
        for (mark, undo) in [(b'%', percent as Undo), (b'\\', backslash as Undo)] {
            let mut of = 0;
            for _ in 0..2 {
                let Some(view) = views.get(of).filter(|view| view.bytes().contains(&mark)) else { break };
                let undone = view.undo(mark, undo);
                of = views.len();
                views.push(undone);
            }
        }
        views
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Own(bytes) => bytes,
            Bytes::Undone(bytes) => bytes,
        }
    }

    /// The piece of the text that the view shows from `start` to `end`.
    pub(super) fn source(&self, start: usize, end: usize) -> (usize, usize) {
        (self.place(start), self.place(end))
    }

    fn place(&self, at: usize) -> usize {
        match &self.places {
            None => at,
            Some(places) => places.get(at).or(places.last()).copied().unwrap_or(at),
        }
    }

    fn undo<'b>(&self, mark: u8, undo: Undo) -> View<'b> {
        let text = self.bytes();
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
        let mut places = Vec::with_capacity(text.len() + 1);
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let escape = if rest.first() == Some(&mark) { undo(rest) } else { None };
            let (taken, meant) = escape.unwrap_or_else(|| (1, Cow::Owned(rest.iter().take(1).copied().collect())));
            places.extend(std::iter::repeat_n(self.place(at), meant.len()));
            bytes.extend_from_slice(&meant);
            at += taken;
        }
        places.push(self.place(at));
        View { bytes: Bytes::Undone(bytes), places: Some(places) }
    }
}

/// `%41`.
fn percent(rest: &[u8]) -> Option<(usize, Cow<'static, [u8]>)> {
    let byte = u8::try_from(number(rest.get(1..3)?)?).ok()?;
    Some((3, Cow::Owned(vec![byte])))
}

/// `\u0041`, a pair of surrogates, `\u{41}`, `\x41`, and any other character that stands for itself.
fn backslash(rest: &[u8]) -> Option<(usize, Cow<'static, [u8]>)> {
    let utf8 = |code: u32| char::from_u32(code).map(|c| Cow::Owned(c.to_string().into_bytes()));
    match *rest.get(1)? {
        b'u' if rest.get(2) == Some(&b'{') => {
            let end = rest.iter().take(10).position(|&b| b == b'}')?;
            Some((end + 1, utf8(number(rest.get(3..end)?)?)?))
        }
        b'u' => {
            let high = number(rest.get(2..6)?)?;
            if !(0xd800..0xdc00).contains(&high) {
                return Some((6, utf8(high)?));
            }
            let low = number(rest.get(6..12)?.strip_prefix(b"\\u")?)?.checked_sub(0xdc00)?;
            Some((12, utf8(0x10000 + ((high - 0xd800) << 10) + low)?))
        }
        b'x' => Some((4, Cow::Owned(vec![u8::try_from(number(rest.get(2..4)?)?).ok()?]))),
        b'n' | b'r' | b't' | b'0' => None,
        other => Some((2, Cow::Owned(vec![other]))),
    }
}

fn number(hex: &[u8]) -> Option<u32> {
    if hex.is_empty() || !hex.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undone(text: &str) -> Vec<String> {
        View::all(text.as_bytes()).iter().map(|view| String::from_utf8_lossy(view.bytes()).into_owned()).collect()
    }

    #[test]
    fn escapes_are_undone_and_lead_back() {
        assert_eq!(undone("a%2Fb%2fc%zz%"), ["a%2Fb%2fc%zz%", "a/b/c%zz%", "a/b/c%zz%"]);
        assert_eq!(undone(r#"\u0026\"\\\/\x41\n"#)[1], r#"&"\/A\n"#);
        assert_eq!(undone(r"\ud83d\ude00\u{1f600}\ud83d")[1], r"😀😀\ud83d");
        assert_eq!(undone("a%252Fb").last().unwrap(), "a/b");
        let text = b"x%2Fy";
        let views = View::all(text);
        assert_eq!(views[1].source(1, 2), (1, 4));
        assert_eq!(views[1].source(2, 3), (4, 5));
    }
}
