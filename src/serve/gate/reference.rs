//! Where requests end, told twice more and slowly: as strictly as RFC 9112 is meant, and as leniently as anybody reads it.
//!
//! What `framing` lets through is what the strict reader reads, and then the lenient one sees the same requests: nobody
//! behind a gate can find another request in them. Both read all at once, with nothing but splitting.

/// The most headers.
const HEADERS: usize = 100;
/// The longest line before a chunk.
const LINE: usize = 1024;

/// Where each whole and clear request ends.
pub(super) fn strict(all: &[u8]) -> Vec<usize> {
    ends(all, strict_one)
}

/// Where each request ends for a reader who takes whatever can be made sense of.
pub(super) fn lenient(all: &[u8]) -> Vec<usize> {
    ends(all, lenient_one)
}

fn ends(all: &[u8], one: fn(&[u8]) -> Option<usize>) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while let Some(n) = all.get(at..).filter(|rest| !rest.is_empty()).and_then(one) {
        at += n;
        ends.push(at);
    }
    ends
}

fn strict_one(all: &[u8]) -> Option<usize> {
    let mut rest = all;
    while let Some(after) = rest.strip_prefix(b"\r\n") {
        rest = after;
    }
    let (head, mut rest) = cut(rest, b"\r\n\r\n")?;
    let mut lines = split(head, b"\r\n").into_iter();
    let first: Vec<&[u8]> = lines.next()?.split(|b| *b == b' ').collect();
    let [method, target, version] = first[..] else { return None };
    let (whole, plain) = (all.len() - rest.len(), target.iter().all(|b| *b > b' ' && *b != 0x7f));
    let url = [&b"http://"[..], b"https://"].iter().any(|scheme| {
        target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    });
    if !is_token(method)
        || !plain
        || !(target.starts_with(b"/") || target == b"*" || url)
        || std::str::from_utf8(target).is_err()
        || !matches!(version, b"HTTP/1.0" | b"HTTP/1.1")
    {
        return None;
    }
    let headers = fields(lines)?;
    let all_of = |wanted: &[u8]| -> Vec<&[u8]> {
        let named = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        named.map(|(_, value)| *value).collect()
    };
    if all_of(b"host").len() > 1 {
        return None;
    }
    match (&all_of(b"content-length")[..], &all_of(b"transfer-encoding")[..]) {
        ([], []) => Some(whole),
        ([length], []) => {
            let length = number(length, 10)?;
            (rest.len() >= length).then(|| whole + length)
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && version == b"HTTP/1.1" => {
            loop {
                let (line, after) = cut(rest, b"\r\n")?;
                let end = line.iter().position(|b| *b == b';').unwrap_or(line.len());
                let (size, more) = line.split_at(end);
                if !is_text(more) || line.len() + 1 >= LINE {
                    return None;
                }
                let size = number(size, 16)?;
                if size > 0 {
                    rest = after.get(size..)?.strip_prefix(b"\r\n")?;
                    continue;
                }
                if let Some(after) = after.strip_prefix(b"\r\n") {
                    return Some(all.len() - after.len());
                }
                let (trailers, after) = cut(after, b"\r\n\r\n")?;
                fields(split(trailers, b"\r\n").into_iter())?;
                return Some(all.len() - after.len());
            }
        }
        _ => None,
    }
}

fn fields<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<Vec<(&'a [u8], &'a [u8])>> {
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = cut(line, b":")?;
        if !is_token(name) || !is_text(value) || fields.len() == HEADERS {
            return None;
        }
        fields.push((name, value.trim_ascii()));
    }
    Some(fields)
}

fn is_token(name: &[u8]) -> bool {
    !name.is_empty()
        && name.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

fn is_text(value: &[u8]) -> bool {
    value.iter().all(|b| *b == b'\t' || !b.is_ascii_control())
}

fn number(digits: &[u8], radix: u32) -> Option<usize> {
    if digits.is_empty() || !digits.iter().all(|b| char::from(*b).is_digit(radix)) {
        return None;
    }
    usize::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

/// Lines end in LF, with or without CR; names and numbers may have space around them; of several lengths the last one
/// counts, and before them all any transfer encoding that speaks of chunks.
fn lenient_one(all: &[u8]) -> Option<usize> {
    let mut at = 0;
    let mut line = || {
        let rest = all.get(at..)?;
        let end = rest.iter().position(|b| *b == b'\n')?;
        at += end + 1;
        let line = rest.get(..end)?;
        Some((line.strip_suffix(b"\r").unwrap_or(line), at))
    };
    while line()?.0.trim_ascii().is_empty() {}
    let (mut length, mut chunked) = (0, false);
    let mut body = loop {
        let (line, end) = line()?;
        if line.is_empty() {
            break end;
        }
        let Some((name, value)) = cut(line, b":") else { continue };
        let (name, value) = (name.trim_ascii().to_ascii_lowercase(), value.trim_ascii());
        if name == b"content-length" {
            length = leading(value, 10);
        } else if name == b"transfer-encoding" {
            let value = value.to_ascii_lowercase();
            chunked |= value.windows(7).any(|word| word == b"chunked");
        }
    };
    if !chunked {
        return Some(body.checked_add(length)?).filter(|end| *end <= all.len());
    }
    loop {
        let rest = all.get(body..)?;
        let end = rest.iter().position(|b| *b == b'\n')?;
        let size = leading(rest.get(..end)?.trim_ascii(), 16);
        body = body.checked_add(end + 1)?.checked_add(size)?;
        let ends = all.get(body..)?;
        if size == 0 {
            let blank = [&b"\r\n"[..], b"\n"];
            if let Some(blank) = blank.iter().find(|blank| ends.starts_with(blank)) {
                return Some(body + blank.len());
            }
            let found = [&b"\n\r\n"[..], b"\n\n"]
                .iter()
                .filter_map(|blank| Some(find(ends, blank)? + blank.len()))
                .min()?;
            return Some(body + found);
        }
        body += ends.strip_prefix(b"\r\n").map_or(1, |_| 2);
    }
}

/// The number with which a text begins, at most as large as any text is long.
fn leading(text: &[u8], radix: u32) -> usize {
    let digits = text.iter().map_while(|b| char::from(*b).to_digit(radix));
    digits.fold(0_usize, |sum, digit| {
        sum.saturating_mul(radix as usize).saturating_add(digit as usize)
    })
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// What stands before and behind the first `what`.
fn cut<'a>(text: &'a [u8], what: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = find(text, what)?;
    Some((text.get(..at)?, text.get(at + what.len()..)?))
}

fn split<'a>(text: &'a [u8], what: &[u8]) -> Vec<&'a [u8]> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some((part, after)) = cut(rest, what) {
        parts.push(part);
        rest = after;
    }
    parts.push(rest);
    parts
}
