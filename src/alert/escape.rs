//! Hostile text made inert, one function a medium.
//!
//! In: text from logs, already redacted. Out: text that its medium shows as text. Invariant: no output holds a control
//! character, an escape sequence or a mark that changes the direction of writing.

use std::borrow::Cow;

/// No controls, no marks that reorder or hide text. Line breaks and tabs become spaces.
///
/// Every other function here begins with this one.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| is_stripped(c) || is_space(c)) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().filter(|c| !is_stripped(*c)).map(|c| if is_space(c) { ' ' } else { c }).collect())
}

/// For a terminal: what `plain` leaves can't leave the line or colour it.
pub fn terminal(text: &str) -> Cow<'_, str> {
    plain(text)
}

/// For Slack's mrkdwn: no mention, link, or formatting that the text brings along.
///
/// The caller sends it as `verbatim`, so that bare addresses and `@names` stay text.
pub fn slack(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in plain(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // Slack has no escape for these; look-alikes show the text without its formatting.
            '`' => out.push('\u{2019}'),
            '*' => out.push('\u{2217}'),
            '~' => out.push('\u{223c}'),
            _ => out.push(c),
        }
    }
    out
}

/// For HTML text and quoted attribute values.
pub fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in plain(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

/// For a value of a Prometheus or Alertmanager label, at most `max_chars` long. The format's own quoting is the encoder's.
pub fn label(text: &str, max_chars: usize) -> String {
    limit(&plain(text), max_chars).into_owned()
}

/// For JSON that may meet a terminal: what `plain` would strip stays, as `\u` escapes. `serialized` is valid JSON on one line,
/// where such characters stand inside strings only.
pub fn json(serialized: String) -> String {
    let is_live = |c: char| !c.is_ascii() && (is_stripped(c) || is_space(c)) || c == '\u{7f}';
    if !serialized.chars().any(is_live) {
        return serialized;
    }
    let mut out = String::with_capacity(serialized.len() + 16);
    for c in serialized.chars() {
        if is_live(c) {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        } else {
            out.push(c);
        }
    }
    out
}

/// For a header or an SNS subject: one line of visible ASCII, at most `max_chars` long; the rest becomes `?`.
pub fn header(text: &str, max_chars: usize) -> String {
    let ascii: String = plain(text).chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).take(max_chars).collect();
    ascii.trim().to_owned()
}

/// The first `max_chars` characters; the last one is `…` where something was cut.
pub fn limit(text: &str, max_chars: usize) -> Cow<'_, str> {
    let Some((cut, _)) = text.char_indices().nth(max_chars) else { return Cow::Borrowed(text) };
    let kept = text[..cut].char_indices().last().map_or(0, |(at, _)| at);
    Cow::Owned(format!("{}…", &text[..kept]))
}

fn is_space(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_stripped(c: char) -> bool {
    match c {
        _ if is_space(c) => false,
        _ if c.is_control() => true,
        // Marks and overrides of direction; zero-width characters; the byte order mark; interlinear marks; tags.
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' => true,
        '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_medium_gets_inert_text() {
        let hostile = "\u{1b}[2J<!channel> <https://evil|ok>\n# HELP\u{202e}\u{9b}31m 'x' \"y\" `z` *b*";
        assert_eq!(terminal(hostile), "[2J<!channel> <https://evil|ok> # HELP31m 'x' \"y\" `z` *b*");
        assert_eq!(slack(hostile), "[2J&lt;!channel&gt; &lt;https://evil|ok&gt; # HELP31m 'x' \"y\" \u{2019}z\u{2019} \u{2217}b\u{2217}");
        assert_eq!(html(hostile), "[2J&lt;!channel&gt; &lt;https://evil|ok&gt; # HELP31m &#39;x&#39; &quot;y&quot; `z` *b*");
        assert_eq!(header("Größe\r\nBcc: x", 100), "Gr??e  Bcc: x");
    }

    #[test]
    fn json_keeps_its_value_and_loses_its_bite() {
        let value = serde_json::json!({ "a": "\u{9b}x\u{202e}\u{e0041}\u{7f}\u{1b}é" });
        let text = json(value.to_string());
        assert_eq!(text, "{\"a\":\"\\u009bx\\u202e\\udb40\\udc41\\u007f\\u001bé\"}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn limits_count_characters() {
        for (text, max, expected) in [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("äöü", 2, "ä…"), ("ab", 1, "…"), ("", 1, "")] {
            assert_eq!(limit(text, max), expected, "{text} {max}");
        }
    }

    #[test]
    fn ordinary_text_is_borrowed() {
        assert!(matches!(plain("déjà vu 漢字 — ok"), Cow::Borrowed(_)));
    }
}
