//! DEFLATE from RFC 1951 alone: slow, plain, and curious about distances.

/// What a stream holds.
pub struct Inflated {
    /// What was compressed.
    pub output: Vec<u8>,
    /// The farthest that a reference goes back.
    pub distance_max: usize,
}

/// Reads blocks up to the last one, or to the end of the input.
pub fn inflate(data: &[u8]) -> Result<Inflated, &'static str> {
    let mut bits = Bits { data, at: 0 };
    let mut inflated = Inflated { output: Vec::new(), distance_max: 0 };
    // A byte can hold a whole block, so less than three bits are no block.
    while bits.left() >= 3 {
        let is_last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => stored(&mut bits, &mut inflated)?,
            1 => block(&mut bits, &fixed_lengths(), &Code::new(&[5; 30]), &mut inflated)?,
            2 => {
                let (literals, distances) = dynamic(&mut bits)?;
                block(&mut bits, &literals, &distances, &mut inflated)?;
            }
            _ => return Err("a block of no kind"),
        }
        if is_last {
            break;
        }
    }
    Ok(inflated)
}

struct Bits<'d> {
    data: &'d [u8],
    at: usize,
}

impl Bits<'_> {
    fn left(&self) -> usize {
        self.data.len() * 8 - self.at
    }

    fn take(&mut self, count: usize) -> Result<usize, &'static str> {
        let mut value = 0;
        for place in 0..count {
            let byte = *self.data.get(self.at / 8).ok_or("the stream is cut off")?;
            value |= usize::from(byte >> (self.at % 8) & 1) << place;
            self.at += 1;
        }
        Ok(value)
    }
}

/// A canonical code (section 3.2.2): how many symbols have each length, and the symbols in the order of their codes.
struct Code {
    counts: [usize; 16],
    symbols: Vec<usize>,
}

impl Code {
    fn new(lengths: &[usize]) -> Self {
        let mut counts = [0; 16];
        lengths.iter().for_each(|length| counts[*length] += 1);
        counts[0] = 0;
        let mut symbols: Vec<usize> = (0..lengths.len()).filter(|symbol| lengths[*symbol] > 0).collect();
        symbols.sort_by_key(|symbol| lengths[*symbol]);
        Self { counts, symbols }
    }

    fn read(&self, bits: &mut Bits<'_>) -> Result<usize, &'static str> {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for count in &self.counts[1..] {
            code |= bits.take(1)?;
            if code < first + count {
                return Ok(self.symbols[index + code - first]);
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        Err("a code that stands for nothing")
    }
}

fn fixed_lengths() -> Code {
    let length = |symbol| match symbol {
        0..144 => 8,
        144..256 => 9,
        256..280 => 7,
        _ => 8,
    };
    Code::new(&(0..288).map(length).collect::<Vec<_>>())
}

fn stored(bits: &mut Bits<'_>, inflated: &mut Inflated) -> Result<(), &'static str> {
    bits.at = bits.at.next_multiple_of(8);
    let (length, complement) = (bits.take(16)?, bits.take(16)?);
    if length != !complement & 0xffff {
        return Err("a stored block whose lengths differ");
    }
    for _ in 0..length {
        inflated.output.push(bits.take(8)? as u8);
    }
    Ok(())
}

fn dynamic(bits: &mut Bits<'_>) -> Result<(Code, Code), &'static str> {
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let (literals, distances, codes) = (bits.take(5)? + 257, bits.take(5)? + 1, bits.take(4)? + 4);
    let mut lengths = [0; 19];
    for place in &ORDER[..codes] {
        lengths[*place] = bits.take(3)?;
    }
    let code = Code::new(&lengths);
    let mut lengths = Vec::new();
    while lengths.len() < literals + distances {
        let (length, times) = match code.read(bits)? {
            16 => (*lengths.last().ok_or("nothing to repeat")?, 3 + bits.take(2)?),
            17 => (0, 3 + bits.take(3)?),
            18 => (0, 11 + bits.take(7)?),
            length => (length, 1),
        };
        lengths.extend(std::iter::repeat_n(length, times));
    }
    if lengths.len() > literals + distances {
        return Err("more lengths than symbols");
    }
    Ok((Code::new(&lengths[..literals]), Code::new(&lengths[literals..])))
}

fn block(bits: &mut Bits<'_>, literals: &Code, distances: &Code, inflated: &mut Inflated) -> Result<(), &'static str> {
    loop {
        let length = match literals.read(bits)? {
            literal @ 0..256 => {
                inflated.output.push(literal as u8);
                continue;
            }
            256 => return Ok(()),
            symbol @ 257..265 => symbol - 254,
            symbol @ 265..285 => extended(bits, (symbol - 261) / 4, 3, (symbol - 257) % 4 + 4)?,
            285 => 258,
            _ => return Err("a length of no code"),
        };
        let distance = match distances.read(bits)? {
            symbol @ 0..4 => symbol + 1,
            symbol @ 4..30 => extended(bits, symbol / 2 - 1, 1, symbol % 2 + 2)?,
            _ => return Err("a distance of no code"),
        };
        let from = inflated.output.len().checked_sub(distance).ok_or("a distance too far back")?;
        inflated.distance_max = inflated.distance_max.max(distance);
        for at in from..from + length {
            inflated.output.push(inflated.output[at]);
        }
    }
}

/// A base with `extra` bits behind it (the tables of section 3.2.5 in one line).
fn extended(bits: &mut Bits<'_>, extra: usize, least: usize, base: usize) -> Result<usize, &'static str> {
    Ok(least + (base << extra) + bits.take(extra)?)
}
