//! A Rust file as tidy sees it: tokens with their lines, comments and literals dropped, test code marked.
//!
//! In: source text. Out: tokens, imports, functions. Invariant: a brace or a name inside a comment or a literal is no token.

#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    pub text: String,
    pub line: usize,
    /// Inside an item under `#[cfg(test)]`.
    pub test: bool,
}

/// Length in bytes of the comment or literal at the start of `text`; 0 where there is none.
fn skip_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return block_comment_len(bytes);
    }
    let prefix = bytes.iter().take_while(|b| matches!(b, b'b' | b'c' | b'r')).count();
    let after = &text[prefix..];
    let hashes = after.bytes().take_while(|&b| b == b'#').count();
    if prefix > 0 && text[..prefix].ends_with('r') && after[hashes..].starts_with('"') {
        let close = format!("\"{}", "#".repeat(hashes));
        let body = prefix + hashes + 1;
        return text[body..].find(&close).map_or(text.len(), |at| body + at + close.len());
    }
    if after.starts_with('"') {
        return prefix + quoted_len(after.as_bytes(), b'"');
    }
    if after.starts_with('\'') && (prefix == 0 || &text[..prefix] == "b") {
        // A lifetime has no closing quote right behind its first character.
        let first = after[1..].chars().next().unwrap_or(' ');
        let closes = first == '\\' || after[1 + first.len_utf8()..].starts_with('\'');
        return if closes { prefix + quoted_len(after.as_bytes(), b'\'') } else { 0 };
    }
    0
}

fn block_comment_len(bytes: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'/', Some(b'*')) => (depth, at) = (depth + 1, at + 2),
            (b'*', Some(b'/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted_len(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b if b == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

pub fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let skip = skip_len(rest);
        let len = if skip > 0 {
            skip
        } else if first.is_alphanumeric() || first == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let len = len.min(rest.len());
        if skip == 0 && !first.is_whitespace() {
            found.push(Token { text: rest[..len].to_owned(), line, test: false });
        }
        line += rest[..len].matches('\n').count();
        rest = &rest[len..];
    }
    mark_tests(&mut found);
    found
}

fn is_seq(tokens: &[Token], at: usize, want: &[&str]) -> bool {
    want.iter().enumerate().all(|(i, want)| tokens.get(at + i).is_some_and(|t| t.text == *want))
}

/// Index just behind the bracket that closes the one at `open`.
fn close_of(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

fn mark_tests(tokens: &mut [Token]) {
    let mut at = 0;
    while at < tokens.len() {
        if is_seq(tokens, at, &["#", "[", "cfg", "(", "test", ")", "]"]) {
            let mut end = at + 7;
            while end < tokens.len() {
                match tokens[end].text.as_str() {
                    ";" => break,
                    "{" => {
                        end = close_of(tokens, end);
                        break;
                    }
                    "(" | "[" => end = close_of(tokens, end),
                    _ => end += 1,
                }
            }
            let end = end.min(tokens.len());
            tokens[at..end].iter_mut().for_each(|t| t.test = true);
            at = end;
        } else {
            at += 1;
        }
    }
}

/// Top-level modules of ours that a file names by `crate::` or `super::`, with the line. `path` is the file's own module path.
pub fn imports(tokens: &[Token], path: &[String]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let mut base = path.to_vec();
        let mut next = at;
        if is_seq(tokens, at, &["crate", "::"]) {
            base.clear();
            next += 2;
        }
        while is_seq(tokens, next, &["super", "::"]) {
            base.pop();
            next += 2;
        }
        if next > at && base.is_empty() {
            heads(tokens, next, &mut found);
        }
        at = next.max(at + 1);
    }
    found
}

/// First names of the path or of each path of the group at `at`.
fn heads(tokens: &[Token], at: usize, found: &mut Vec<(String, usize)>) {
    let Some(token) = tokens.get(at) else { return };
    if token.text != "{" {
        if !token.test {
            found.push((token.text.clone(), token.line));
        }
        return;
    }
    let end = close_of(tokens, at);
    let mut inner = at + 1;
    while inner + 1 < end {
        heads(tokens, inner, found);
        while inner + 1 < end && tokens[inner].text != "," {
            inner = if tokens[inner].text == "{" { close_of(tokens, inner) } else { inner + 1 };
        }
        inner += 1;
    }
}

/// A function's name, first line and length in lines; or the same of an inline test module.
pub struct Extent {
    pub name: String,
    pub line: usize,
    pub lines: usize,
    pub test: bool,
}

/// Items that start with `keyword` and have a body.
pub fn extents(tokens: &[Token], keyword: &str) -> Vec<Extent> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let Some(name) = tokens.get(at + 1).filter(|t| token.text == keyword && t.text.starts_with(|c: char| c.is_alphabetic() || c == '_')) else {
            continue;
        };
        let mut open = at + 2;
        while open < tokens.len() && !matches!(tokens[open].text.as_str(), "{" | ";") {
            open = if matches!(tokens[open].text.as_str(), "(" | "[") { close_of(tokens, open) } else { open + 1 };
        }
        if tokens.get(open).is_some_and(|t| t.text == "{") {
            let last = tokens[close_of(tokens, open) - 1].line;
            found.push(Extent { name: name.text.clone(), line: token.line, lines: last + 1 - token.line, test: token.test });
        }
    }
    found
}

/// Lines of production code that call `.unwrap()`.
pub fn unwraps(tokens: &[Token]) -> Vec<usize> {
    (0..tokens.len()).filter(|&at| !tokens[at].test && is_seq(tokens, at, &[".", "unwrap", "(", ")"])).map(|at| tokens[at].line).collect()
}
