//! A statement as a row of words.
//!
//! In: statement text, perhaps cut. Out: words and quoted names, raw. Invariant: comments and brackets are passed over, and no byte is
//! looked at more than a few times.

/// Length of the comment at the start. MySQL runs the inside of `/*!…*/`, so only its opening counts as comment.
pub(super) fn comment(bytes: &[u8]) -> usize {
    match bytes {
        [b'/', b'*', b'!', rest @ ..] => 3 + rest.iter().take(6).take_while(|byte| byte.is_ascii_digit()).count(),
        [b'/', b'*', b'M', b'!', rest @ ..] => 4 + rest.iter().take(6).take_while(|byte| byte.is_ascii_digit()).count(),
        [b'/', b'*', rest @ ..] => memchr::memmem::find(rest, b"*/").map_or(bytes.len(), |end| end + 4),
        [b'-', b'-', rest @ ..] => memchr::memchr(b'\n', rest).map_or(bytes.len(), |end| end + 3),
        _ => 0,
    }
}

/// Words and quoted names of a statement; comments and brackets are passed over.
pub(super) struct Words<'a> {
    pub rest: &'a [u8],
}

impl<'a> Words<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    fn skip(&mut self) {
        loop {
            let blanks = self.rest.iter().take_while(|byte| byte.is_ascii_whitespace() || matches!(byte, b'(' | b')' | b',' | b';')).count();
            self.rest = &self.rest[blanks..];
            let comment = match self.rest {
                [b'*', b'/', ..] => 2,
                [b'#', ..] => memchr::memchr(b'\n', self.rest).unwrap_or(self.rest.len()),
                rest => comment(rest),
            };
            if comment == 0 {
                return;
            }
            self.rest = &self.rest[comment..];
        }
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.skip();
        let mut end = 0;
        while let Some(&byte) = self.rest.get(end) {
            match byte {
                b'"' | b'`' | b'\'' | b'[' => {
                    let close = if byte == b'[' { b']' } else { byte };
                    end = memchr::memchr(close, &self.rest[end + 1..]).map_or(self.rest.len(), |at| end + at + 2);
                }
                b'(' | b')' | b',' | b';' => break,
                b'=' if end > 0 => break,
                _ if byte.is_ascii_whitespace() => break,
                b'/' if self.rest.get(end + 1) == Some(&b'*') => break,
                b'-' if self.rest.get(end + 1) == Some(&b'-') => break,
                b'*' if self.rest.get(end + 1) == Some(&b'/') => break,
                _ => end += 1,
            }
        }
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }
}
