//! Modifiers that change the string itself.
//!
//! In: a pattern. Out: the patterns that stand for it, any of which may match. Invariant: their number is bounded.

use crate::rule::{
    ast::{Part, Pattern},
    modifier::Transform,
};

/// Five forms of each flag character: four flags in one string are already 625.
const MAX_VARIANTS: usize = 1024;

/// What goes through the chain: a pattern until an encoding makes bytes of it.
enum Text {
    Pattern(Pattern),
    Bytes(Vec<u8>),
}

/// Applies the transforms in order; `Err` says what is wrong.
pub(super) fn apply(pattern: Pattern, transforms: &[Transform]) -> Result<Vec<Pattern>, &'static str> {
    let mut texts = vec![Text::Pattern(pattern)];
    for transform in transforms {
        let mut changed = Vec::new();
        for text in texts {
            one(text, *transform, &mut changed)?;
        }
        if changed.len() > MAX_VARIANTS {
            return Err("this value stands for more than 1,024 variants");
        }
        texts = changed;
    }
    let pattern = |text| match text {
        Text::Pattern(pattern) => Ok(pattern),
        Text::Bytes(_) => Err("UTF-16 text must be encoded with `base64` or `base64offset`"),
    };
    texts.into_iter().map(pattern).collect()
}

fn one(text: Text, transform: Transform, out: &mut Vec<Text>) -> Result<(), &'static str> {
    if transform == Transform::WinDash {
        let Text::Pattern(pattern) = text else { return Err("`windash` must stand before the encodings") };
        out.extend(dashes(&pattern)?.into_iter().map(Text::Pattern));
        return Ok(());
    }
    let bytes = match text {
        Text::Bytes(bytes) => bytes,
        Text::Pattern(pattern) => match pattern.as_plain() {
            Some(text) => match transform {
                Transform::Base64 | Transform::Base64Offset => text.as_bytes().to_vec(),
                Transform::Utf16Be => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
                Transform::Utf16Le => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
                _ => [0xFF, 0xFE].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect(),
            },
            None => return Err("wildcards can't be encoded; escape them with `\\` if the characters are meant"),
        },
    };
    match transform {
        Transform::Base64 => out.push(Text::Pattern(Pattern::plain(&base64_simd::STANDARD.encode_to_string(&bytes)))),
        Transform::Base64Offset => out.extend((0..3).map(|shift| Text::Pattern(Pattern::plain(&shifted(&bytes, shift))))),
        _ => out.push(Text::Bytes(bytes)),
    }
    Ok(())
}

/// The characters of the Base64 text that depend on `bytes` alone when `shift` unknown bytes come before.
fn shifted(bytes: &[u8], shift: usize) -> String {
    let padded: Vec<u8> = std::iter::repeat_n(0, shift).chain(bytes.iter().copied()).collect();
    let text = base64_simd::STANDARD.encode_to_string(&padded);
    let start = [0, 2, 3][shift];
    let end = text.len() - [0, 3, 2][padded.len() % 3];
    text.get(start..end).unwrap_or_default().to_owned()
}

/// Every `-` or `/` that begins a flag (no word character before it, one behind it) in all five forms.
fn dashes(pattern: &Pattern) -> Result<Vec<Pattern>, &'static str> {
    const FORMS: [char; 5] = ['-', '/', '\u{2013}', '\u{2014}', '\u{2015}'];
    let word = |character: char| character.is_alphanumeric() || character == '_';
    let mut variants = vec![Pattern::default()];
    for part in &pattern.0 {
        let Part::Literal(text) = part else {
            variants.iter_mut().for_each(|variant| variant.0.push(part.clone()));
            continue;
        };
        let mut pieces = vec![String::new()];
        let mut before = ' ';
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            let flag = matches!(character, '-' | '/') && !word(before) && characters.peek().is_some_and(|next| word(*next));
            if flag {
                pieces = pieces.iter().flat_map(|piece| FORMS.map(|form| format!("{piece}{form}"))).collect();
            } else {
                pieces.iter_mut().for_each(|piece| piece.push(character));
            }
            if pieces.len() * variants.len() > MAX_VARIANTS {
                return Err("too many flags for `windash`: more than 1,024 variants");
            }
            before = character;
        }
        let extend = |variant: &Pattern, piece: String| {
            let mut parts = variant.0.clone();
            parts.push(Part::Literal(piece));
            Pattern(parts)
        };
        variants = variants.iter().flat_map(|variant| pieces.iter().map(|piece| extend(variant, piece.clone()))).collect();
    }
    Ok(variants)
}
