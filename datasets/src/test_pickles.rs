//! Pickles as Python and NumPy write them, for tests.

/// As written by Python 2 (1), and by Python 3 in protocols 2, 4 and 5.
pub const PROTOCOLS: [u8; 4] = [1, 2, 4, 5];

/// A batch as NumPy pickles it in protocols 2 (by Python 2 or 3), 4 and 5, opcode by opcode.
pub struct Pickle {
    bytes: Vec<u8>,
    protocol: u8,
}

impl Pickle {
    fn put(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.bytes.extend_from_slice(bytes.as_ref());
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        let length = text.len() as u8;
        match self.protocol {
            1 => self.put([b'U', length]), // SHORT_BINSTRING, a string of Python 2
            2 => self.put([b'X', length, 0, 0, 0]), // BINUNICODE
            _ => self.put([0x8c, length]), // SHORT_BINUNICODE
        };
        self.put(text)
    }

    fn global(&mut self, module: &str, name: &str) -> &mut Self {
        match self.protocol {
            1 | 2 => self.put(format!("c{module}\n{name}\n")),
            _ => self.text(module).text(name).put([0x93]), // STACK_GLOBAL
        }
    }

    fn int(&mut self, number: u32) -> &mut Self {
        self.put(b"J").put(number.to_le_bytes())
    }

    fn data(&mut self, data: &[u8]) -> &mut Self {
        let length = data.len() as u32;
        match self.protocol {
            1 => self.put(b"T").put(length.to_le_bytes()).put(data), // BINSTRING
            2 => {
                // Python 3 writes bytes as a text that `_codecs.encode` turns into Latin-1.
                let text: String = data.iter().map(|&b| char::from(b)).collect();
                self.global("_codecs", "encode")
                    .put(b"X")
                    .put((text.len() as u32).to_le_bytes());
                self.put(text).text("latin1").put([0x86, b'R'])
            }
            4 => self.put(b"B").put(length.to_le_bytes()).put(data), // BINBYTES
            _ => self
                .put([0x96])
                .put(u64::from(length).to_le_bytes())
                .put(data), // BYTEARRAY8
        }
    }

    /// dtype('u1') with its state.
    fn dtype(&mut self) -> &mut Self {
        self.global("numpy", "dtype")
            .text("u1")
            .put([0x89, 0x88, 0x87, b'R', b'('])
            .int(3)
            .text("|");
        self.put("NNN").int(u32::MAX).int(u32::MAX).int(0).put("tb")
    }

    /// `rows` images of `columns` bytes; labels under `key`.
    pub fn batch(
        protocol: u8,
        [rows, columns]: [u32; 2],
        data: &[u8],
        labels: &[u32],
        key: &str,
    ) -> Vec<u8> {
        let mut p = Self {
            bytes: vec![0x80, protocol.max(2)],
            protocol,
        };
        p.put("}(").text("data");
        if protocol < 5 {
            p.global("numpy.core.multiarray", "_reconstruct")
                .global("numpy", "ndarray");
            p.int(0).put([0x85]).text("b").put([0x87, b'R', b'(']); // TUPLE1, TUPLE3, REDUCE, MARK
            p.int(1)
                .int(rows)
                .int(columns)
                .put([0x86])
                .dtype()
                .put([0x89])
                .data(data)
                .put("tb");
        } else {
            p.global("numpy.core.numeric", "_frombuffer")
                .put("(")
                .data(data)
                .dtype();
            p.int(rows).int(columns).put([0x86]).text("C").put("tR");
        }
        p.text(key).put("](");
        for label in labels {
            p.int(*label);
        }
        p.put("eu.").bytes.clone()
    }

    /// A dictionary with one list of texts.
    pub fn names(protocol: u8, key: &str, names: &[&str]) -> Vec<u8> {
        let mut p = Self {
            bytes: vec![0x80, protocol.max(2)],
            protocol,
        };
        p.put("}").text(key).put("](");
        for name in names {
            p.text(name);
        }
        p.put("es.").bytes.clone()
    }
}
