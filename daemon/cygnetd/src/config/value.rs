//! Typed reading of single values, with what was expected when one does not fit.

use std::net::IpAddr;
use std::time::Duration;

use toml::de::DeValue;

type Read<T> = Result<T, String>;

/// A string.
pub(super) fn text<'a>(value: &'a DeValue<'_>) -> Read<&'a str> {
    value.as_str().ok_or_else(|| format!("must be a string, not {}", value.type_str()))
}

/// `true` or `false`.
pub(super) fn boolean(value: &DeValue<'_>) -> Read<bool> {
    value.as_bool().ok_or_else(|| format!("must be true or false, not {}", value.type_str()))
}

/// A whole number within `min..=max`.
pub(super) fn number<T: TryFrom<i64>>(value: &DeValue<'_>, min: i64, max: i64) -> Read<T> {
    let expected = || format!("must be a whole number from {min} to {max}");
    let integer = value.as_integer().ok_or_else(expected)?;
    let digits = integer.as_str().replace('_', "");
    let number = i64::from_str_radix(&digits, integer.radix()).map_err(|_| expected())?;
    if !(min..=max).contains(&number) {
        return Err(expected());
    }
    T::try_from(number).map_err(|_| expected())
}

/// A number with or without a fraction.
fn fraction(value: &DeValue<'_>) -> Option<f64> {
    let digits = value.as_float().map(|float| float.as_str().replace('_', ""));
    let digits = digits.or_else(|| value.as_integer().filter(|i| i.radix() == 10).map(|i| i.as_str().replace('_', "")));
    digits.and_then(|digits| digits.parse().ok()).filter(|number: &f64| number.is_finite())
}

/// A factor of at least 1.
pub(super) fn factor(value: &DeValue<'_>) -> Read<f64> {
    fraction(value)
        .filter(|factor| (1.0..=1000.0).contains(factor))
        .ok_or_else(|| "must be a number from 1.0 to 1000.0".into())
}

/// A span of time: seconds as a number, or a string with a unit.
pub(super) fn duration(value: &DeValue<'_>) -> Read<Duration> {
    const EXPECTED: &str =
        "must be seconds as a number, or a string such as \"500ms\", \"30s\", \"5m\", \"4h\" or \"1d\"";
    let seconds = match value.as_str() {
        None => fraction(value),
        Some(text) => {
            let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
            let (digits, unit) = text.split_at(at);
            let scale = match unit {
                "ms" => Some(0.001),
                "" | "s" => Some(1.0),
                "m" => Some(60.0),
                "h" => Some(3_600.0),
                "d" => Some(86_400.0),
                _ => None,
            };
            digits.trim().parse::<f64>().ok().zip(scale).map(|(number, scale)| number * scale)
        }
    };
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(|| EXPECTED.into())
}

/// One of `words`.
pub(super) fn word<T: Copy>(value: &DeValue<'_>, words: &[(&str, T)]) -> Read<T> {
    let given = text(value)?;
    words.iter().find(|(word, _)| *word == given).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("must be one of {}, not `{given}`", names.join(", "))
    })
}

/// A list of some of `words`.
pub(super) fn list<'w>(value: &DeValue<'_>, words: &[&'w str]) -> Read<Vec<&'w str>> {
    let items = value.as_array().ok_or_else(|| format!("must be a list of some of {}", words.join(", ")))?;
    items
        .iter()
        .map(|item| {
            let given = text(item.get_ref())?;
            let known = words.iter().find(|word| **word == given).copied();
            known.ok_or_else(|| format!("holds `{given}`, but knows {}", words.join(", ")))
        })
        .collect()
}

/// A list of strings.
pub(super) fn texts(value: &DeValue<'_>) -> Read<Vec<String>> {
    let list = value.as_array().ok_or("must be a string or a list of strings")?;
    list.iter().map(|item| text(item.get_ref()).map(str::to_owned)).collect()
}

/// A list of addresses.
pub(super) fn addresses(value: &DeValue<'_>) -> Read<Vec<IpAddr>> {
    let list = value.as_array().ok_or("must be a list of addresses, such as [\"192.0.2.1\"]")?;
    list.iter()
        .map(|item| {
            let text = text(item.get_ref())?;
            text.parse().map_err(|_| format!("holds `{text}`, which is not an address"))
        })
        .collect()
}
