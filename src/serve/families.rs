//! How metrics are written: families of samples, in `OpenMetrics` and in the text format before it.
//!
//! By hand: nearly all is read from what is known anyway, for which `prometheus-client` wants as many lines as the format
//! does, and it has no text format of old, which promtool checks.

use std::fmt::{Display, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::http::Reply;
use crate::counts::{LIMITS, Times};

/// What a scraper reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    OpenMetrics,
    /// The text format before it, for `?format=text`.
    Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gauge,
    Counter,
    Histogram,
    Info,
}

/// All samples of one name.
#[derive(Debug)]
pub(crate) struct Family {
    kind: Kind,
    /// Without the `_total` or `_info` of its samples.
    name: &'static str,
    /// The last word of the name, where that is a unit.
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
}

pub(crate) type Labels = &'static [&'static str];

/// What has a value now.
pub(crate) const fn gauge(name: &'static str, labels: Labels, help: &'static str) -> Family {
    Family { kind: Kind::Gauge, name, unit: "", labels, help }
}

/// What only grows.
pub(crate) const fn counter(name: &'static str, labels: Labels, help: &'static str) -> Family {
    Family { kind: Kind::Counter, name, unit: "", labels, help }
}

/// Times, in seconds.
pub(crate) const fn histogram(name: &'static str, labels: Labels, help: &'static str) -> Family {
    Family { kind: Kind::Histogram, name, unit: "seconds", labels, help }
}

/// What is in the labels; the value is 1.
pub(crate) const fn info(name: &'static str, labels: Labels, help: &'static str) -> Family {
    Family { kind: Kind::Info, name, unit: "", labels, help }
}

impl Family {
    /// With the last word of its name as its unit.
    pub(crate) const fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }
}

/// A percentage as `OpenMetrics` wants it.
pub(crate) fn ratio(percent: u8) -> f64 {
    f64::from(percent) / 100.0
}

/// A time as `OpenMetrics` wants it.
pub(crate) fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

/// The answer as it is written. Writing to a string cannot fail.
#[derive(Debug)]
pub(crate) struct Page {
    out: String,
    form: Form,
}

impl Page {
    /// An empty one, in the form that the query asks for.
    pub(crate) fn new(query: &str) -> Self {
        let text = query.split('&').any(|pair| pair == "format=text");
        let form = if text { Form::Text } else { Form::OpenMetrics };
        Self { out: String::with_capacity(16 << 10), form }
    }

    /// The answer.
    pub(crate) fn reply(mut self) -> Reply {
        let content_type = match self.form {
            Form::Text => "text/plain; version=0.0.4; charset=utf-8",
            Form::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        };
        if self.form == Form::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        Reply::new(200, content_type, &[], self.out)
    }

    /// What is said of a family before its samples, which may be none. Returns the name of most of them.
    fn begin(&mut self, family: &Family) -> String {
        let Family { kind, name, unit, help, .. } = family;
        let (word, suffix) = match (self.form, kind) {
            (_, Kind::Gauge) => ("gauge", ""),
            (_, Kind::Counter) => ("counter", "_total"),
            (_, Kind::Histogram) => ("histogram", ""),
            (Form::OpenMetrics, Kind::Info) => ("info", "_info"),
            (Form::Text, Kind::Info) => ("gauge", "_info"),
        };
        let sample = format!("{name}{suffix}");
        let family = match self.form {
            Form::OpenMetrics => name,
            Form::Text => &*sample,
        };
        let _ = writeln!(self.out, "# TYPE {family} {word}");
        if self.form == Form::OpenMetrics && !unit.is_empty() {
            let _ = writeln!(self.out, "# UNIT {family} {unit}");
        }
        let _ = writeln!(self.out, "# HELP {family} {help}");
        sample
    }

    /// A family with its samples.
    pub(crate) fn all<'a, const N: usize>(
        &mut self,
        family: &Family,
        samples: impl IntoIterator<Item = ([&'a str; N], impl Display)>,
    ) {
        debug_assert_eq!(family.labels.len(), N, "{}", family.name);
        let name = self.begin(family);
        for (values, value) in samples {
            self.sample(&name, family.labels.iter().copied().zip(values), value);
        }
    }

    /// One sample without labels.
    pub(crate) fn one(&mut self, family: &Family, value: impl Display) {
        self.all(family, [([], value)]);
    }

    /// The same, where there is one.
    pub(crate) fn maybe(&mut self, family: &Family, value: Option<impl Display>) {
        self.all(family, value.map(|value| ([], value)));
    }

    /// One label, and the times for each of its values.
    pub(crate) fn histogram<'a>(
        &mut self,
        family: &Family,
        each: impl Iterator<Item = (&'static str, &'a Times)>,
    ) {
        let name = self.begin(family);
        let [bucket, count, sum] = ["bucket", "count", "sum"].map(|end| format!("{name}_{end}"));
        let limits =
            LIMITS.map(|limit| format!("{:?}", Duration::from_millis(limit).as_secs_f64()));
        for (value, times) in each {
            let labels = || family.labels.iter().copied().zip([value]);
            let cumulated = times.cumulated();
            let bounds = limits.iter().map(|limit| &**limit).chain(["+Inf"]);
            for (bound, number) in bounds.zip(cumulated) {
                self.sample(&bucket, labels().chain([("le", bound)]), number);
            }
            // Not counted again: a look may finish meanwhile.
            self.sample(&count, labels(), cumulated.last().copied().unwrap_or_default());
            self.sample(&sum, labels(), times.sum().as_secs_f64());
        }
    }

    fn sample<'a>(
        &mut self,
        name: &str,
        labels: impl Iterator<Item = (&'static str, &'a str)>,
        value: impl Display,
    ) {
        self.out.push_str(name);
        let mut before = '{';
        for (label, value) in labels {
            self.out.push(before);
            before = ',';
            self.out.push_str(label);
            self.out.push_str("=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    c => self.out.push(c),
                }
            }
            self.out.push('"');
        }
        if before == ',' {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: Family =
        counter("hcf_gate_sent_bytes", &["gate", "address"], "Bytes to the gate's clients.")
            .unit("bytes");

    #[test]
    fn labels_are_escaped_and_both_forms_name_counters_their_way() {
        let write = |form| {
            let mut page = Page { out: String::new(), form };
            page.all(&SENT, [(["a", "unix:/\"\\\n"], 7)]);
            page.out
        };
        let sample = "hcf_gate_sent_bytes_total{gate=\"a\",address=\"unix:/\\\"\\\\\\n\"} 7\n";
        let help = "Bytes to the gate's clients.\n";
        assert_eq!(
            write(Form::OpenMetrics),
            format!(
                "# TYPE hcf_gate_sent_bytes counter\n# UNIT hcf_gate_sent_bytes bytes\n# HELP hcf_gate_sent_bytes {help}{sample}"
            )
        );
        assert_eq!(
            write(Form::Text),
            format!(
                "# TYPE hcf_gate_sent_bytes_total counter\n# HELP hcf_gate_sent_bytes_total {help}{sample}"
            )
        );
    }
}
