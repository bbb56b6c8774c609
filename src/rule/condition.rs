//! Conditions: boolean expressions over named things.
//!
//! In: a condition's text and the names it may use. Out: `Condition` over indexes of the names. Invariant: every index is
//! in range, and depth is bounded.
//!
//! Grammar (Sigma 2.1.0; `not` binds tighter than `and`, `and` tighter than `or`):
//! `or := and ("or" and)*`, `and := not ("and" not)*`, `not := "not" not | "(" or ")" | ("1" | "any" | "all") "of" glob | name`.

use std::ops::Range;

use crate::rule::{
    ast::{Condition, Spanned},
    diagnostic::{Report, shorten},
    yaml::Node,
};

const MAX_TEXT: usize = 16 << 10;
const MAX_DEPTH: usize = 64;

/// Parses the scalar `node` over `names`; `what` is what a name names, for messages.
pub fn parse(node: &Node, names: &[&str], what: &str, report: &mut Report) -> Option<Spanned<Condition>> {
    let Some(text) = node.text().filter(|text| !text.trim().is_empty()) else {
        report.error_hint(
            node.span,
            format!("a condition must be text, not {}", node.what()),
            format!("name a {what}, as in `condition: selection`"),
        );
        return None;
    };
    if text.len() > MAX_TEXT {
        report.error(node.span, format!("a condition may have {MAX_TEXT} bytes"));
        return None;
    }
    if let Some(at) = text.find('|') {
        report.error_hint(
            node.piece(at..text.len()),
            "the `|` of Sigma 1 conditions is gone from Sigma 2",
            "count or order matches with a correlation document: `correlation: {type: event_count, …}` in the same file",
        );
        return None;
    }
    let tokens = tokens(text);
    let mut parser = Parser { node, text, tokens, at: 0, depth: 0, names, what, report };
    let condition = parser.or().ok()?;
    if let Some((kind, range)) = parser.peek() {
        let (piece, message) = (parser.node.piece(range.clone()), format!("unexpected `{}`", shorten(&text[range])));
        let hint = if kind == Token::Close { "there is no `(` for it" } else { "join it with `and` or `or`" };
        parser.report.error_hint(piece, message, hint);
        return None;
    }
    Some(Spanned { value: condition, span: node.span })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    Word,
}

fn tokens(text: &str) -> Vec<(Token, Range<usize>)> {
    let mut tokens = Vec::new();
    let mut word: Option<usize> = None;
    for (at, character) in text.char_indices() {
        let bracket = match character {
            '(' => Some(Token::Open),
            ')' => Some(Token::Close),
            _ => None,
        };
        if bracket.is_none() && !character.is_whitespace() {
            word.get_or_insert(at);
            continue;
        }
        if let Some(start) = word.take() {
            tokens.push((Token::Word, start..at));
        }
        tokens.extend(bracket.map(|bracket| (bracket, at..at + 1)));
    }
    tokens.extend(word.map(|start| (Token::Word, start..text.len())));
    tokens
}

struct Parser<'a, 'r> {
    node: &'a Node,
    text: &'a str,
    tokens: Vec<(Token, Range<usize>)>,
    at: usize,
    depth: usize,
    names: &'a [&'a str],
    what: &'a str,
    report: &'r mut Report,
}

/// The error has been reported.
struct Failed;

impl<'a> Parser<'a, '_> {
    fn or(&mut self) -> Result<Condition, Failed> {
        let mut parts = vec![self.and()?];
        while self.keyword("or") {
            parts.push(self.and()?);
        }
        Ok(joined(parts, Condition::Or))
    }

    fn and(&mut self) -> Result<Condition, Failed> {
        let mut parts = vec![self.not()?];
        while self.keyword("and") {
            parts.push(self.not()?);
        }
        Ok(joined(parts, Condition::And))
    }

    fn not(&mut self) -> Result<Condition, Failed> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            self.report.error(self.node.span, format!("a condition may be nested {MAX_DEPTH} deep"));
            return Err(Failed);
        }
        let condition = if self.keyword("not") { Condition::Not(Box::new(self.not()?)) } else { self.operand()? };
        self.depth -= 1;
        Ok(condition)
    }

    fn operand(&mut self) -> Result<Condition, Failed> {
        let Some((token, range)) = self.peek() else {
            let span = self.node.piece(self.text.len()..self.text.len());
            self.report.error_hint(span, "the condition ends too early", format!("a {} or `(` must follow", self.what));
            return Err(Failed);
        };
        self.at += 1;
        match token {
            Token::Open => {
                let inner = self.or()?;
                if !matches!(self.peek(), Some((Token::Close, _))) {
                    self.report.error_hint(self.node.piece(range), "this `(` is never closed", "add `)`");
                    return Err(Failed);
                }
                self.at += 1;
                Ok(inner)
            }
            Token::Close => {
                let message = format!("a {} or `(` must stand before this `)`", self.what);
                self.report.error(self.node.piece(range), message);
                Err(Failed)
            }
            Token::Word => self.word(range),
        }
    }

    fn word(&mut self, range: Range<usize>) -> Result<Condition, Failed> {
        let text = self.text;
        let word = &text[range.clone()];
        if let Some((Token::Word, of)) = self.peek()
            && text[of.clone()].eq_ignore_ascii_case("of")
        {
            self.at += 1;
            return self.quantified(word, range, of);
        }
        if let Some(index) = self.names.iter().position(|name| *name == word) {
            return Ok(Condition::Selection(index));
        }
        let span = self.node.piece(range);
        if ["and", "or", "of"].iter().any(|keyword| word.eq_ignore_ascii_case(keyword)) {
            self.report.error(span, format!("a {} must stand before and after `{word}`", self.what));
        } else if word.contains('*') {
            let hint = format!("write `1 of {word}` or `all of {word}`");
            self.report.error_hint(span, format!("`{}` can stand for several {}s", shorten(word), self.what), hint);
        } else if word.eq_ignore_ascii_case("near") {
            self.report.error_hint(span, "`near` is gone from Sigma 2", "write a correlation document of type temporal");
        } else if word == "them" {
            self.report.error_hint(span, "`them` needs a quantifier", "write `1 of them` or `all of them`");
        } else {
            self.report.unknown(span, self.what, word, self.names.iter().copied());
        }
        Err(Failed)
    }

    fn quantified(&mut self, quantifier: &str, range: Range<usize>, of: Range<usize>) -> Result<Condition, Failed> {
        let join = match quantifier.to_ascii_lowercase().as_str() {
            "1" | "any" => Condition::Or,
            "all" => Condition::And,
            _ => {
                let message = format!("unknown quantifier `{}`", shorten(quantifier));
                self.report.error_hint(self.node.piece(range), message, "Sigma has `1 of`, `any of` and `all of`");
                return Err(Failed);
            }
        };
        let Some((Token::Word, range)) = self.peek() else {
            let hint = format!("name {}s, as in `1 of selection_*` or `1 of them`", self.what);
            self.report.error_hint(self.node.piece(of), "`of` what?", hint);
            return Err(Failed);
        };
        self.at += 1;
        let glob = &self.text[range.clone()];
        let hidden = |name: &str| name.starts_with('_') && !glob.starts_with('_');
        let chosen = |name: &str| !hidden(name) && (glob.eq_ignore_ascii_case("them") || glob_matches(glob, name));
        let indexes = self.names.iter().enumerate().filter(|(_, name)| chosen(name));
        let parts: Vec<_> = indexes.map(|(index, _)| Condition::Selection(index)).collect();
        if parts.is_empty() {
            let names = self.names.join(", ");
            let message = format!("`{}` stands for no {}", shorten(glob), self.what);
            self.report.error_hint(self.node.piece(range), message, format!("there are: {names}"));
            return Err(Failed);
        }
        Ok(joined(parts, join))
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let found = matches!(self.peek(), Some((Token::Word, range)) if self.text[range.clone()].eq_ignore_ascii_case(keyword));
        self.at += usize::from(found);
        found
    }

    fn peek(&self) -> Option<(Token, Range<usize>)> {
        self.tokens.get(self.at).cloned()
    }
}

fn joined(mut parts: Vec<Condition>, join: fn(Vec<Condition>) -> Condition) -> Condition {
    if parts.len() == 1 { parts.remove(0) } else { join(parts) }
}

/// `*` is any run of characters.
fn glob_matches(glob: &str, name: &str) -> bool {
    let mut pieces = glob.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut pieces: Vec<_> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests;
