//! The Prometheus text format, as far as it is needed to read counters, gauges and buckets. Pure.

/// Samples of one scrape at most: a node has some hundreds, and a page that is larger is no node's.
const SAMPLES_MAX: usize = 100_000;

/// One value of one series.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    pub(super) series: Series,
    pub(super) value: f64,
}

/// A name with its labels, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Series {
    pub(super) name: String,
    labels: Vec<(String, String)>,
}

/// What is no metrics page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("line {line} is not in the Prometheus text format")]
    Line { line: usize },
    #[error("more than {SAMPLES_MAX} samples")]
    TooMany,
}

impl Series {
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.as_str())
    }
}

/// All samples whose name is wanted.
pub(super) fn parse(text: &str, wanted: impl Fn(&str) -> bool) -> Result<Vec<Sample>, Error> {
    let mut samples = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let sample = sample(line).ok_or(Error::Line { line: at + 1 })?;
        if wanted(&sample.series.name) {
            if samples.len() == SAMPLES_MAX {
                return Err(Error::TooMany);
            }
            samples.push(sample);
        }
    }
    Ok(samples)
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')?;
    let (name, rest) = line.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    if !rest.starts_with([' ', '\t']) {
        return None;
    }
    // A timestamp or an exemplar may follow; neither says anything here.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { series: Series { name: name.to_owned(), labels }, value })
}

/// What stands between the braces, and what follows them.
fn labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        if let Some(after) = rest.strip_prefix('}') {
            labels.sort();
            return Some((labels, after));
        }
        let (name, after) = rest.split_once('=')?;
        let (value, after) = quoted(after.trim_start().strip_prefix('"')?)?;
        labels.push((name.trim().to_owned(), value));
        rest = after;
    }
}

/// The text up to the closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Sample {
        parse(line, |_| true).unwrap().remove(0)
    }

    #[test]
    fn names_labels_and_values_are_read() {
        let text =
            "# HELP a_total Help.\n# TYPE a_total counter\na_total 3\n\nb{x=\"1\",le=\"0.25\"} 2.5e3\n";
        let samples = parse(text, |_| true).unwrap();
        assert_eq!((samples[0].series.name.as_str(), samples[0].value), ("a_total", 3.0));
        assert_eq!(samples[1].series.label("le"), Some("0.25"));
        assert_eq!(samples[1].value, 2_500.0);
        assert_eq!(parse(text, |name| name == "b").unwrap().len(), 1);
    }

    #[test]
    fn the_order_of_labels_makes_no_other_series() {
        assert_eq!(one("a{x=\"1\",y=\"2\"} 1").series, one("a{y=\"2\", x=\"1\",} 1").series);
    }

    #[test]
    fn escapes_timestamps_exemplars_and_infinity_are_understood() {
        assert_eq!(one(r#"a{x="q\"b\\n\n}"} 1 1700000000"#).series.label("x"), Some("q\"b\\n\n}"));
        assert_eq!(one(r#"a_bucket{le="+Inf"} 7 # {trace_id="ab"} 0.1 1700.5"#).value, 7.0);
        assert!(one("a +Inf").value.is_infinite());
        assert!(one("a NaN").value.is_nan());
    }

    #[test]
    fn what_is_no_metrics_page_is_an_error_that_names_the_line() {
        for text in ["<html>", "a", "a{x=\"1\"", "a{x=1} 2", "a one", "1a 2", "a{x=\"1\"}2", "{} 1"] {
            assert_eq!(parse(&format!("b 1\n{text}\n"), |_| true), Err(Error::Line { line: 2 }), "{text}");
        }
    }
}
