//! Host ranges: `runner-[01:40]`, `db-[a:f]`, `rack[1:9:2]-[1:4]`, as Ansible has them. Both ends are included.

use super::check::Problem;
use super::diag::quoted;

/// More hosts than this from one line are a slip of the pen.
const MOST: usize = 10_000;

/// Whether a name holds a range.
pub(super) fn is_range(text: &str) -> bool {
    text.contains(['[', ']'])
}

/// Every name that a pattern of ranges stands for, in order; a name without a range stands for itself.
pub(super) fn expand(text: &str) -> Result<Vec<String>, Problem> {
    let mut names = vec![String::new()];
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        let (inside, after) = after.split_once(']').ok_or_else(|| wrong(text, "`[` has no `]`"))?;
        if before.contains(']') {
            return Err(wrong(text, "`]` has no `[`"));
        }
        let items = items(text, inside)?;
        if names.len().saturating_mul(items.len()) > MOST {
            return Err(wrong(text, &format!("it stands for more than {MOST} hosts")));
        }
        names = names.iter().flat_map(|start| items.iter().map(move |item| format!("{start}{before}{item}"))).collect();
        rest = after;
    }
    if rest.contains(']') {
        return Err(wrong(text, "`]` has no `[`"));
    }
    names.iter_mut().for_each(|name| name.push_str(rest));
    Ok(names)
}

fn wrong(text: &str, why: &str) -> Problem {
    Problem::new(format!("{} is no host range: {why}", quoted(text)))
        .help("write it like `runner-[01:40]`, `db-[a:f]` or `rack-[1:9:2]`")
}

fn items(text: &str, inside: &str) -> Result<Vec<String>, Problem> {
    let parts: Vec<&str> = inside.split(':').collect();
    let (first, last, step) = match parts.as_slice() {
        [first, last] => (*first, *last, 1),
        [first, last, step] => {
            let step = step.parse::<usize>().ok().filter(|step| (1..=MOST).contains(step));
            (*first, *last, step.ok_or_else(|| wrong(text, "the step is no number above 0"))?)
        }
        _ => return Err(wrong(text, "it needs a first and a last, with `:` between them")),
    };
    if let (Some(from), Some(to)) = (letter(first), letter(last)) {
        if from.is_ascii_lowercase() != to.is_ascii_lowercase() || from > to {
            return Err(wrong(text, "the first letter comes after the last"));
        }
        return Ok((from..=to).step_by(step).map(|c| char::from(c).to_string()).collect());
    }
    let number = |part: &str| -> Result<u32, Problem> {
        let digits = !part.is_empty() && part.len() <= 9 && part.bytes().all(|b| b.is_ascii_digit());
        part.parse().ok().filter(|_| digits).ok_or_else(|| wrong(text, "its ends are neither numbers nor letters"))
    };
    let (from, to) = (number(first)?, number(last)?);
    if from > to {
        return Err(wrong(text, "the first number is above the last"));
    }
    if (to - from) as usize / step >= MOST {
        return Err(wrong(text, &format!("it stands for more than {MOST} hosts")));
    }
    // A leading zero asks for numbers of one width, as in 01, 02, … 10.
    let padded = first.len() > 1 && first.starts_with('0');
    if padded && first.len() != last.len() {
        return Err(wrong(text, "with a leading zero both ends have the same number of digits"));
    }
    let width = if padded { first.len() } else { 0 };
    Ok((from..=to).step_by(step).map(|number| format!("{number:0width$}")).collect())
}

fn letter(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [one] if one.is_ascii_alphabetic() => Some(*one),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> String {
        expand(text).map_or_else(|problem| problem.message, |names| names.join(" "))
    }

    #[test]
    fn ranges_stand_for_their_hosts() {
        assert_eq!(names("plain"), "plain");
        assert_eq!(names("r-[08:11].x"), "r-08.x r-09.x r-10.x r-11.x");
        assert_eq!(names("r-[8:11]"), "r-8 r-9 r-10 r-11");
        assert_eq!(names("[a:c]"), "a b c");
        assert_eq!(names("r[1:10:4]"), "r1 r5 r9");
        assert_eq!(names("r[1:2]-[a:b]"), "r1-a r1-b r2-a r2-b");
        assert_eq!(expand("runner-[01:40]").unwrap().len(), 40);
    }

    #[test]
    fn wrong_ranges_say_why_and_large_ones_are_refused_before_they_are_made() {
        for text in [
            "a[",
            "a]",
            "a]b[1:2]",
            "a[1]",
            "a[1:2:3:4]",
            "a[2:1]",
            "a[b:a]",
            "a[a:Z]",
            "a[1:b]",
            "a[:5]",
            "a[01:100]",
            "a[1:2:0]",
            "a[+1:2]",
            "a[0:999999999]",
            "a[1:200]b[1:200]",
            "a[1:9999999999]",
            "[[1:2]]",
        ] {
            assert!(expand(text).is_err(), "{text}");
        }
        assert_eq!(names("a[5:1]"), "`a[5:1]` is no host range: the first number is above the last");
    }
}
