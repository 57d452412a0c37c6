//! Instructions that the processor has and a program built for all of its kind does not use.

/// Work whose speed depends on the instructions it is compiled to. `run` must be `#[inline(always)]`,
/// and what it calls inlined too, or it is compiled for every processor all the same.
pub trait Work {
    /// What the work gives.
    type Output;

    /// Does it.
    fn run(self) -> Self::Output;
}

/// Does `work` with the best instructions for shifting and masking bits that this processor has: BMI2
/// on `x86_64`, where the plain ones need one certain register and three steps.
///
/// It is here because only `unsafe` can say that the processor has been asked first.
#[inline]
pub fn with_bit_instructions<W: Work>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2") {
        // SAFETY: this processor has both, as it was just asked.
        return unsafe { with_bmi2(work) };
    }
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "bmi1,bmi2")]
fn with_bmi2<W: Work>(work: W) -> W::Output {
    work.run()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Shift(u64, u32);

    impl Work for Shift {
        type Output = u64;

        #[inline(always)]
        fn run(self) -> u64 {
            (self.0 >> (self.1 & 63)) & !(u64::MAX << (self.1 & 63))
        }
    }

    #[test]
    fn it_gives_the_same_either_way() {
        for n in 0..64 {
            let word = 0xfedc_ba98_7654_3210;
            assert_eq!(
                with_bit_instructions(Shift(word, n)),
                Shift(word, n).run(),
                "{n}"
            );
        }
    }
}
