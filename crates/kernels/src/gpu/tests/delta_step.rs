//! A delta net's step in one launch, compared with the kernels of its parts.

use candle_core::{DType, Result, Tensor};

use super::{
    DEVICE, TYPES, both, close,
    delta::{Dims, SLOTS, among_others, span},
    flat, on, random,
};
use crate::{
    DecodeRow, DecodeRows, DecodeSize, DeltaNet, Draw, HeadSteps, HeadsOf, Norm, Spans, StateSpan, delta_net_in_steps,
    gpu,
};

/// A delta net with random projections, on the device and in f32 for the oracle.
struct Net {
    /// qkv, b, a and gate.
    projections: [Tensor; 4],
    /// The norms of queries and keys.
    norms: [Tensor; 2],
    /// Decay, bias, and the norm of a head.
    exact: [Tensor; 3],
    key_heads: usize,
}

impl Net {
    fn random(n: usize, (key_heads, heads, dk, dv): Dims) -> Result<Self> {
        let columns = [2 * key_heads * dk + heads * dv, heads, heads, heads * dv];
        let mut projections = [1, 2, 3, 4].map(|seed| random(&[n, columns[seed as usize - 1]], seed));
        projections[3] = (&projections[3] * 6.0)?;
        Ok(Self {
            projections,
            norms: [(random(&[dk], 5) / (dk as f64).sqrt())?, random(&[dk], 6)],
            exact: [(random(&[heads], 7).abs()? * -4.0)?, random(&[heads], 8), random(&[dv], 9)],
            key_heads,
        })
    }

    /// The net on the device, and the same values in f32.
    fn prepared(&self, dtype: DType) -> Result<[Self; 2]> {
        let two = |t: &Tensor| both(t, dtype).map(|(mine, theirs)| [mine, theirs]);
        let [qkv, b, a, gate] = self.projections.each_ref().map(two);
        let [q_norm, k_norm] = self.norms.each_ref().map(two);
        let ([qkv, qkv32], [b, b32], [a, a32], [gate, gate32]) = (qkv?, b?, a?, gate?);
        let ([q_norm, q32], [k_norm, k32]) = (q_norm?, k_norm?);
        let [decay, bias, norm] = self.exact.each_ref().map(on);
        let (exact, exact32) = ([decay?, bias?, norm?], self.exact.clone());
        let key_heads = self.key_heads;
        Ok([
            Self { projections: [qkv, b, a, gate], norms: [q_norm, k_norm], exact, key_heads },
            Self { projections: [qkv32, b32, a32, gate32], norms: [q32, k32], exact: exact32, key_heads },
        ])
    }

    /// The same net with its projections replaced by `make`.
    fn with(&self, make: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let [qkv, b, a, gate] = self.projections.each_ref().map(make);
        let (norms, exact, key_heads) = (self.norms.clone(), self.exact.clone(), self.key_heads);
        Ok(Self { projections: [qkv?, b?, a?, gate?], norms, exact, key_heads })
    }

    fn net(&self) -> DeltaNet<'_> {
        let [qkv, b, a, gate] = &self.projections;
        let [decay, bias, norm] = &self.exact;
        let [q_norm, k_norm] =
            [(&self.norms[0], 1e-6), (&self.norms[1], 1e-3)].map(|(weight, eps)| Norm { weight, eps });
        let norm = Norm { weight: norm, eps: 1e-5 };
        DeltaNet { qkv, b, a, gate, decay, bias, q_norm, k_norm, norm, key_heads: self.key_heads }
    }
}

/// The operations of a delta net one after another, one kernel each.
fn net_in_kernels(
    net: &DeltaNet<'_>,
    state: &Tensor,
    spans: &Spans<StateSpan>,
    lambda: Option<&Tensor>,
) -> Result<Tensor> {
    let (columns, dk) = (net.qkv.dim(1)?, state.dim(2)?);
    let keys = net.key_heads * dk;
    let part = |from: usize, width: usize| net.qkv.narrow(1, from, width);
    let (q, k, v) = (part(0, keys)?, part(keys, keys)?, part(2 * keys, columns - 2 * keys)?);
    let view =
        |x, norm| HeadsOf { x, count: net.key_heads, dim: dk, steps: HeadSteps { norm: Some(norm), angles: None } };
    let [q, k] = gpu::heads([view(&q, net.q_norm), view(&k, net.k_norm)])?;
    let (beta, g) = gpu::delta_gates(net.b, net.a, net.decay, net.bias)?;
    let o = gpu::delta_rule([&q, &k, &v, &g, &beta], state, spans)?;
    gpu::gated_norm(&o, net.gate, net.norm.weight, net.norm.eps, lambda)
}

#[test]
fn a_step_in_one_launch_is_its_kernels_bit_for_bit() -> Result<()> {
    for dtype in TYPES {
        for dims in [(2, 4, 16, 24), (3, 3, 21, 7), (1, 2, 5, 1), (2, 4, 128, 128), (1, 1, 256, 64), (1, 2, 131, 9)] {
            let (_, heads, dk, dv) = dims;
            // First with tokens of no span in between, and an idle row; then with spans numbered like their tokens.
            let apart = Spans::from(vec![span(1, 1, 4, 5), span(2, 1, 0, 0), span(3, 0, 5, 2), span(4, 1, 9, 3)]);
            let rows = [span(0, 1, 4, 5), span(1, 1, 0, 0), span(2, 0, 5, 2), span(3, 0, 0, 1), span(4, 1, 9, 3)];
            let rows = Spans::from(rows.to_vec());
            let [mine, theirs] = Net::random(6, dims)?.prepared(dtype)?;
            let before = random(&[SLOTS, heads, dk, dv], 10);
            let lambda = random(&[6, heads], 11);
            for (spans, lambda) in [(&apart, None), (&apart, Some(&lambda)), (&rows, Some(&lambda))] {
                let what = format!("a net's step of {dims:?}, λ {}", lambda.is_some());
                let state32 = before.copy()?;
                let expected = delta_net_in_steps(&theirs.net(), &state32, spans, lambda)?;
                let lambda = lambda.map(on).transpose()?;
                let steps_state = on(&before)?.copy()?;
                let in_steps = net_in_kernels(&mine.net(), &steps_state, spans, lambda.as_ref())?;
                let lying = |columns| mine.with(|t| among_others(t, columns)); // where the other columns are NaN
                for mine in [&mine, &lying((4, 8))?, &lying((3, 2))?] {
                    let state = on(&before)?.copy()?;
                    let z = gpu::delta_step(&mine.net(), &state, spans, lambda.as_ref())?.expect("one token each");
                    assert_eq!(z.dtype(), dtype);
                    // In other types, each kernel is compared with its oracle elsewhere: what one rounds, the next would amplify.
                    if dtype == DType::F32 {
                        close(&z, &expected, &what);
                        close(&state, &state32, &format!("state of {what}"));
                    }
                    assert_eq!(flat(&z), flat(&in_steps), "{what}: in one launch and in several");
                    assert_eq!(flat(&state), flat(&steps_state), "{what}: the state");
                    // Alone it gives the same.
                    let (own, alone) = (on(&before)?.copy()?, mine.with(|t| t.narrow(0, 4, 1))?);
                    let lambda = lambda.as_ref().map(|lambda| lambda.narrow(0, 4, 1)).transpose()?;
                    let one = vec![span(0, 1, 9, 3)].into();
                    let alone = gpu::delta_step(&alone.net(), &own, &one, lambda.as_ref())?.expect("one token");
                    assert_eq!(flat(&alone), flat(&z.narrow(0, 4, 1)?), "{what}: alone");
                }
            }
        }
    }
    Ok(())
}

/// As in a recorded step: a table that is part of a larger tensor on the device, and has fewer tokens than the list.
#[test]
fn a_table_on_the_device_is_read_wherever_it_lies() -> Result<()> {
    let dims @ (_, heads, dk, dv) = (1, 2, 32, 8);
    for n in 1..=5 {
        let choice = Draw::default().into();
        let row = |slot| DecodeRow { id: 0, position: 7, lambda: 0, slot, left: 2, stops: vec![], choice };
        let working = n - n / 2; // the others are idle
        let rows = DecodeRows::new(DecodeSize { rows: n, stops: 3, text: 0, room: 2, capacity: 9 }, &DEVICE)?;
        rows.set(&(0..working).map(row).collect::<Vec<_>>())?;
        let list = |n: usize| (0..n).map(|i| span(i, 1, 7, i)).collect::<Vec<_>>();
        let (moving, still) = (Spans::from(list(n)).on_device(rows.states().clone()), Spans::from(list(working)));
        let [mine, _] = Net::random(n, dims)?.prepared(DType::F32)?;
        let (net, before) = (mine.net(), random(&[n, heads, dk, dv], 10));
        let held = random(&[n, 3, net.qkv.dim(1)?], 11);
        let weight = on(&random(&[net.qkv.dim(1)?, 4], 12))?;
        let both = [&moving, &still].map(|spans| {
            let (state, in_steps, held) = (on(&before)?.copy()?, on(&before)?.copy()?, on(&held)?.copy()?);
            let z = gpu::delta_step(&net, &state, spans, None)?.expect("one token each");
            let steps = net_in_kernels(&net, &in_steps, spans, None)?;
            let conv = gpu::causal_conv(net.qkv, &weight, &held, spans)?;
            Ok([z, state, steps, in_steps, conv, held].map(|t| flat(&t)))
        });
        let [moving, still]: [Result<[Vec<f32>; 6]>; 2] = both;
        assert!(moving? == still?, "{working} of {n} rows");
    }
    Ok(())
}

#[test]
fn a_step_in_one_launch_knows_what_it_cannot_do() -> Result<()> {
    let dims @ (_, heads, dk, dv) = (1, 2, 16, 8);
    let [mine, _] = Net::random(4, dims)?.prepared(DType::F32)?;
    let state = on(&random(&[2, heads, dk, dv], 10))?;
    let before = flat(&state);
    let step = |spans: Vec<StateSpan>| gpu::delta_step(&mine.net(), &state, &spans.into(), None);
    assert!(step(vec![span(0, 2, 1, 0)])?.is_none(), "two tokens of one sequence");
    // Heads too wide for any block.
    let wide = Net::random(1, (1, 1, 256, 72))?.prepared(DType::F32)?;
    let wide_state = on(&random(&[1, 1, 256, 72], 10))?;
    assert!(gpu::delta_step(&wide[0].net(), &wide_state, &vec![span(0, 1, 1, 0)].into(), None)?.is_none());
    let says = |refused: Result<Option<Tensor>>, why: &str| {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(why), "'{error}' does not say '{why}'");
    };
    says(step(vec![span(4, 1, 0, 0)]), "outside 4 tokens or 2 slots");
    says(step(vec![span(0, 1, 0, 0), span(1, 1, 0, 0)]), "continued by two spans");
    let with = |net: DeltaNet<'_>| gpu::delta_step(&net, &state, &vec![span(0, 1, 1, 0)].into(), None);
    says(with(DeltaNet { key_heads: 2, ..mine.net() }), "do not fit 2 key heads and a state [2, 2, 16, 8]");
    says(
        with(DeltaNet { key_heads: 0, qkv: &mine.net().qkv.narrow(1, 0, 16)?, ..mine.net() }),
        "do not fit 0 key heads",
    );
    let three = on(&random(&[4, 3 * 2 * 16 + 16], 1))?;
    says(with(DeltaNet { key_heads: 3, qkv: &three, ..mine.net() }), "do not fit 3 key heads");
    says(with(DeltaNet { gate: mine.net().b, ..mine.net() }), "do not fit");
    says(with(DeltaNet { decay: &on(&random(&[3], 1))?, ..mine.net() }), "do not fit");
    says(with(DeltaNet { b: &mine.net().b.to_dtype(DType::BF16)?, ..mine.net() }), "BF16");
    let askew = on(&random(&[16, 4], 1))?.t()?;
    says(with(DeltaNet { gate: &askew, ..mine.net() }), "whose last dimension lies together");
    let own = state.get(0)?.flatten_all()?.narrow(0, 0, 2)?;
    says(with(DeltaNet { bias: &own, ..mine.net() }), "shares the storage");
    let lambda = on(&random(&[4, 3], 1))?;
    says(gpu::delta_step(&mine.net(), &state, &vec![].into(), Some(&lambda)), "a factor a token and head");
    assert_eq!(flat(&state), before);
    Ok(())
}
