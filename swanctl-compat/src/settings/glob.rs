//! File name patterns as `include` takes them: `*`, `?`, `[a-z]`, `[!a-z]` and `\` for a literal character.

/// Whether `pattern` holds an unescaped wildcard.
#[must_use]
pub(crate) fn has_wildcard(pattern: &str) -> bool {
    let mut escaped = false;
    pattern.chars().any(|c| {
        let wild = !escaped && matches!(c, '*' | '?' | '[');
        escaped = !escaped && c == '\\';
        wild
    })
}

/// The literal text of a pattern without wildcards.
#[must_use]
pub(crate) fn unescape(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    out
}

/// A pattern that matches exactly `text`.
#[must_use]
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Whether one path component matches. A leading dot is matched only by a dot.
#[must_use]
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    if name.first() == Some(&'.') && pattern.first() != Some(&'.') {
        return false;
    }
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match one(&pattern, p, name.get(n).copied()) {
            Step::Star => {
                star = Some((p, n));
                p += 1;
            }
            Step::Matched(next) => {
                p = next;
                n += 1;
            }
            Step::Failed => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                p = at + 1;
                n = taken + 1;
            }
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|c| *c == '*'))
}

enum Step {
    Star,
    /// Index of the next pattern element.
    Matched(usize),
    Failed,
}

/// Tries one pattern element at `p` on one character.
fn one(pattern: &[char], p: usize, c: Option<char>) -> Step {
    let (Some(&element), Some(c)) = (pattern.get(p), c) else { return Step::Failed };
    match element {
        '*' => Step::Star,
        '?' => Step::Matched(p + 1),
        '[' => bracket(pattern, p, c),
        '\\' => match pattern.get(p + 1) {
            Some(&literal) if literal == c => Step::Matched(p + 2),
            Some(_) | None => Step::Failed,
        },
        literal if literal == c => Step::Matched(p + 1),
        _ => Step::Failed,
    }
}

/// `[...]` starting at `p`; without a closing bracket `[` stands for itself.
fn bracket(pattern: &[char], p: usize, c: char) -> Step {
    let rest = pattern.get(p + 1..).unwrap_or_default();
    let negated = matches!(rest.first(), Some('!' | '^'));
    let set = if negated { rest.get(1..).unwrap_or_default() } else { rest };
    // A `]` right at the front is a member, not the end.
    let Some(end) = set.iter().skip(1).position(|c| *c == ']').map(|i| i + 1) else {
        return if c == '[' { Step::Matched(p + 1) } else { Step::Failed };
    };
    let members = set.get(..end).unwrap_or_default();
    let mut found = false;
    let mut i = 0;
    while let Some(&low) = members.get(i) {
        match (members.get(i + 1), members.get(i + 2)) {
            (Some('-'), Some(&high)) => {
                found |= (low..=high).contains(&c);
                i += 3;
            }
            _ => {
                found |= low == c;
                i += 1;
            }
        }
    }
    if found == negated { Step::Failed } else { Step::Matched(p + 1 + usize::from(negated) + end + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_follow_the_shell() {
        let cases = [
            ("*.conf", "a.conf", true),
            ("*.conf", ".hidden.conf", false),
            (".*.conf", ".hidden.conf", true),
            ("*.conf", "a.conf.bak", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[!a-c]x", "dx", true),
            ("[]a]x", "]x", true),
            ("[ab", "[ab", true),
            (r"a\*b", "a*b", true),
            (r"a\*b", "axb", false),
            ("*a*b*", "xxayyb", true),
            ("**", "anything", true),
            ("", "", true),
            ("", "a", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name), expected, "{pattern} against {name}");
        }
    }

    #[test]
    fn escaped_wildcards_are_literal() {
        assert!(has_wildcard("a*"));
        assert!(!has_wildcard(r"a\*"));
        assert_eq!(unescape(r"a\*\ b"), "a* b");
    }
}
