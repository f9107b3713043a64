//! The two text forms: Prometheus 0.0.4 and OpenMetrics 1.0.

use std::fmt::Write as _;

use super::family::{Family, Kind};

/// Which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The one that a request prefers; Prometheus' own where it does not matter.
    pub(crate) fn accepted(accept: &str) -> Self {
        let quality = |range: &str| {
            let named = accept.split(',').filter_map(|part| {
                let mut parameters = part.split(';').map(str::trim);
                parameters.next().filter(|name| name.eq_ignore_ascii_case(range))?;
                let quality = parameters.find_map(|parameter| parameter.strip_prefix("q="));
                quality.map_or(Some(1.0), |quality| quality.parse::<f32>().ok())
            });
            named.fold(0.0, f32::max)
        };
        let open = quality("application/openmetrics-text");
        if open > 0.0 && open >= quality("text/plain") { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// As a media type.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    /// A count.
    Whole(u64),
    /// Anything else.
    Real(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Whole(value as u64)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Real(value as f64)
    }
}

/// An answer in the making.
#[derive(Debug)]
pub(crate) struct Page {
    format: Format,
    text: String,
}

impl Page {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, text: String::new() }
    }

    /// Begins what is told of one metric; nothing is, where nothing follows.
    pub(crate) fn family(&mut self, family: &'static Family) -> Series<'_> {
        Series { page: self, family, begun: false }
    }

    /// One value without labels.
    pub(crate) fn single(&mut self, family: &'static Family, value: impl Into<Value>) {
        self.family(family).add(&[], value);
    }

    /// The answer.
    pub(crate) fn finish(mut self) -> String {
        match self.format {
            Format::Prometheus => {}
            Format::OpenMetrics => self.text.push_str("# EOF\n"),
        }
        self.text
    }
}

/// The values of one metric.
#[derive(Debug)]
pub(crate) struct Series<'p> {
    page: &'p mut Page,
    family: &'static Family,
    begun: bool,
}

impl Series<'_> {
    /// One value; `labels` are those of the family, in its order.
    pub(crate) fn add(&mut self, labels: &[&str], value: impl Into<Value>) {
        debug_assert_eq!(labels.len(), self.family.labels.len(), "{}", self.family.name);
        if !self.begun {
            self.begun = true;
            self.begin();
        }
        let text = &mut self.page.text;
        text.push_str(self.family.name);
        let mut open = '{';
        for (name, value) in self.family.labels.iter().zip(labels) {
            text.push(open);
            text.push_str(name);
            text.push_str("=\"");
            escape(text, value);
            text.push('"');
            open = ',';
        }
        text.push_str(if open == ',' { "} " } else { " " });
        // Writing to a string cannot fail.
        let _ = match value.into() {
            Value::Whole(value) => writeln!(text, "{value}"),
            Value::Real(value) => writeln!(text, "{value}"),
        };
    }

    fn begin(&mut self) {
        let Family { name, kind, help, .. } = self.family;
        let name = match (self.page.format, kind) {
            (Format::OpenMetrics, Kind::Counter) => name.strip_suffix("_total").unwrap_or(name),
            (Format::OpenMetrics, Kind::Gauge) | (Format::Prometheus, _) => name,
        };
        let text = &mut self.page.text;
        let _ = write!(text, "# HELP {name} ");
        escape(text, help);
        let _ = writeln!(text, "\n# TYPE {name} {}", kind.name());
    }
}

/// As both forms want it inside of quotes; in the help of 0.0.4, which knows no quotes, our own texts have none.
fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::family::{CHILD_BYTES, CHILD_UP, START_TIME};
    use super::*;

    fn page(format: Format) -> String {
        let mut page = Page::new(format);
        let mut series = page.family(&CHILD_BYTES);
        series.add(&["a \"b\"", "c\\d\n", "in"], u64::MAX);
        series.add(&["a", "b", "out"], 0u64);
        let _ = page.family(&CHILD_UP);
        page.single(&START_TIME, 1.5);
        page.finish()
    }

    #[test]
    fn both_forms_are_as_their_readers_want_them() {
        let samples = "cygnet_child_bytes_total{connection=\"a \\\"b\\\"\",child=\"c\\\\d\\n\",direction=\"in\"} 18446744073709551615\n\
                       cygnet_child_bytes_total{connection=\"a\",child=\"b\",direction=\"out\"} 0\n";
        let help = CHILD_BYTES.help;
        let start =
            format!("# HELP cygnet_start_time_seconds {}\n# TYPE cygnet_start_time_seconds gauge\n", START_TIME.help);
        let head = |name: &str| format!("# HELP {name} {help}\n# TYPE {name} counter\n");
        let expected = format!("{}{samples}{start}cygnet_start_time_seconds 1.5\n", head("cygnet_child_bytes_total"));
        assert_eq!(page(Format::Prometheus), expected);
        let expected = format!("{}{samples}{start}cygnet_start_time_seconds 1.5\n# EOF\n", head("cygnet_child_bytes"));
        assert_eq!(page(Format::OpenMetrics), expected);
    }

    #[test]
    fn a_reader_gets_the_form_it_prefers() {
        let prometheus2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;\
                           version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.2";
        for open in [prometheus2, prometheus3, "Application/OpenMetrics-Text", "application/openmetrics-text; q=0.2"] {
            assert_eq!(Format::accepted(open), Format::OpenMetrics, "{open}");
        }
        let refused = "application/openmetrics-text;q=0";
        let less = "text/plain, application/openmetrics-text;q=0.9";
        for plain in [
            "",
            "*/*",
            "text/plain;version=0.0.4",
            "text/html",
            refused,
            less,
            ";;,q=",
            "application/openmetrics-text;q=x",
        ] {
            assert_eq!(Format::accepted(plain), Format::Prometheus, "{plain}");
        }
    }
}
