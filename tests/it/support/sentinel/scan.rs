//! Finds many needles in a stream of bytes in one pass, however the stream is cut into pieces.
//!
//! The stream is searched twice: as it is, and with all white space taken out (also `\n` written as two characters, as
//! JSON has it), so that base64 wrapped at some width, or a value broken over lines, is found too.

use std::collections::BTreeSet;

/// The needles, ready to be searched for.
pub(crate) struct Matcher {
    plain: Table,
    squeezed: Table,
}

/// The search looks at the last two of so many bytes as the shortest needle has. Where no needle has that pair, it leaps
/// over nearly all of them (Wu and Manber's way): tests are built without optimisation and read many files.
struct Table {
    needles: Vec<Vec<u8>>,
    /// How many bytes of a needle are looked at.
    span: usize,
    /// For each pair of bytes how far the search may leap when it sees that pair.
    leap: Vec<u8>,
    /// For each pair of bytes the needles whose first `span` bytes end with it.
    by_pair: Vec<Vec<usize>>,
    longest: usize,
}

/// One stream that is being searched.
pub(crate) struct Scanner<'a> {
    matcher: &'a Matcher,
    plain: Vec<u8>,
    squeezed: Vec<u8>,
    backslashes: usize,
    hits: BTreeSet<usize>,
}

impl Matcher {
    /// Needles are known by their place in the list.
    pub(crate) fn new<'n>(needles: impl Iterator<Item = &'n [u8]> + Clone) -> Self {
        Self { plain: Table::new(needles.clone().map(<[u8]>::to_vec)), squeezed: Table::new(needles.map(squeeze)) }
    }

    /// Begins a stream.
    pub(crate) fn scanner(&self) -> Scanner<'_> {
        Scanner { matcher: self, plain: Vec::new(), squeezed: Vec::new(), backslashes: 0, hits: BTreeSet::new() }
    }
}

impl Scanner<'_> {
    /// Searches the next piece.
    pub(crate) fn feed(&mut self, piece: &[u8]) {
        self.plain.extend_from_slice(piece);
        for &byte in piece {
            squeeze_byte(byte, &mut self.backslashes, &mut self.squeezed);
        }
        self.matcher.plain.search(&mut self.plain, &mut self.hits);
        self.matcher.squeezed.search(&mut self.squeezed, &mut self.hits);
    }

    /// The needles that were found.
    pub(crate) fn finish(mut self) -> BTreeSet<usize> {
        self.squeezed.extend(std::iter::repeat_n(b'\\', self.backslashes));
        self.matcher.squeezed.search(&mut self.squeezed, &mut self.hits);
        self.hits
    }
}

impl Table {
    fn new(needles: impl Iterator<Item = Vec<u8>>) -> Self {
        let needles: Vec<_> = needles.collect();
        let shortest = needles.iter().map(Vec::len).min().unwrap_or(2);
        assert!(shortest > 1, "a needle has two bytes at least");
        let span = shortest.min(64);
        let mut leap = vec![u8::try_from(span - 1).unwrap(); 1 << 16];
        let mut by_pair = vec![Vec::new(); 1 << 16];
        for (index, needle) in needles.iter().enumerate() {
            for at in 0..span - 1 {
                let leap = &mut leap[pair(needle[at], needle[at + 1])];
                *leap = (*leap).min(u8::try_from(span - 2 - at).unwrap());
            }
            by_pair[pair(needle[span - 2], needle[span - 1])].push(index);
        }
        let longest = needles.iter().map(Vec::len).max().unwrap_or(0);
        Self { needles, span, leap, by_pair, longest }
    }

    /// Searches a buffer, then leaves only the end of it, where a needle may have begun.
    fn search(&self, buffer: &mut Vec<u8>, hits: &mut BTreeSet<usize>) {
        let mut last = self.span - 1;
        while last < buffer.len() {
            let seen = pair(buffer[last - 1], buffer[last]);
            let leap = usize::from(self.leap[seen]);
            if leap == 0 {
                for &index in &self.by_pair[seen] {
                    if buffer[last + 1 - self.span..].starts_with(&self.needles[index]) {
                        hits.insert(index);
                    }
                }
            }
            last += leap.max(1);
        }
        buffer.drain(..buffer.len().saturating_sub(self.longest));
    }
}

fn pair(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

fn squeeze(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut backslashes) = (Vec::new(), 0);
    for &byte in bytes {
        squeeze_byte(byte, &mut backslashes, &mut out);
    }
    out.extend(std::iter::repeat_n(b'\\', backslashes));
    // A value that is nearly nothing but white space would match anywhere: it is left as it is.
    if out.len() < super::needles::SHORTEST { bytes.to_vec() } else { out }
}

/// Passes a byte on unless it is white space; backslashes wait for what follows them.
fn squeeze_byte(byte: u8, backslashes: &mut usize, out: &mut Vec<u8>) {
    if byte == b'\\' {
        *backslashes += 1;
        return;
    }
    if *backslashes == 0 {
        if byte > b' ' || !byte.is_ascii_whitespace() {
            out.push(byte);
        }
        return;
    }
    let held = std::mem::take(backslashes);
    if matches!(byte, b'n' | b'r' | b't') {
        return;
    }
    out.extend(std::iter::repeat_n(b'\\', held));
    if !byte.is_ascii_whitespace() {
        out.push(byte);
    }
}
