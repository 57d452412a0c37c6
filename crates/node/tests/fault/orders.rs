//! Who goes on next.

/// All orders, one after the other, in which no more than so many times somebody is made to wait who could
/// have gone on.
pub struct All {
    interruptions_max: usize,
    /// At each choice which was taken, and of how many.
    path: Vec<(usize, usize)>,
    at: usize,
    last: Option<usize>,
    interruptions: usize,
}

impl All {
    pub fn new(interruptions_max: usize) -> All {
        All {
            interruptions_max,
            path: Vec::new(),
            at: 0,
            last: None,
            interruptions: 0,
        }
    }

    pub fn choose(&mut self, ready: &[usize]) -> usize {
        let mut options = ready.to_vec();
        let last = self
            .last
            .and_then(|last| options.iter().position(|one| *one == last));
        if let Some(place) = last {
            options.swap(0, place);
            if self.interruptions == self.interruptions_max {
                options.truncate(1);
            }
        }
        if self.at == self.path.len() {
            self.path.push((0, options.len()));
        }
        let (choice, of) = self.path[self.at];
        assert_eq!(of, options.len(), "the same steps led elsewhere");
        self.at += 1;
        self.interruptions += usize::from(last.is_some() && choice > 0);
        self.last = Some(options[choice]);
        options[choice]
    }

    /// Begins the next order, if there is one.
    pub fn another(&mut self) -> bool {
        (self.at, self.last, self.interruptions) = (0, None, 0);
        while let Some((choice, of)) = self.path.pop() {
            if choice + 1 < of {
                self.path.push((choice + 1, of));
                return true;
            }
        }
        false
    }
}

/// Numbers by chance; the same from the same seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % sides
    }
}

/// An order by chance, in which whoever goes mostly goes on.
pub struct Chance {
    dice: Dice,
    last: usize,
}

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance {
            dice: Dice(seed),
            last: usize::MAX,
        }
    }

    pub fn choose(&mut self, ready: &[usize]) -> usize {
        if self.dice.roll(2) == 0 && ready.contains(&self.last) {
            return self.last;
        }
        self.last = ready[self.dice.roll(ready.len())];
        self.last
    }
}

#[test]
fn each_order_comes_once() {
    // Two actors of three and two steps, of which no more than so many can be interrupted.
    for (interruptions_max, expected) in [(usize::MAX, 10), (0, 2), (1, 5)] {
        let mut orders = All::new(interruptions_max);
        let mut seen = Vec::new();
        loop {
            let mut left = [3, 2];
            let mut order = Vec::new();
            loop {
                let ready: Vec<usize> = (0..2).filter(|one| left[*one] > 0).collect();
                if ready.is_empty() {
                    break;
                }
                let chosen = orders.choose(&ready);
                left[chosen] -= 1;
                order.push(chosen);
            }
            assert!(!seen.contains(&order));
            seen.push(order);
            if !orders.another() {
                break;
            }
        }
        assert_eq!(seen.len(), expected, "{interruptions_max}");
    }
}
