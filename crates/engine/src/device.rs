//! Opens the device that was asked for.

use candle_core::Device;
use headtemper_model::reason;

use crate::{EngineError, Result};

/// Opens `auto`, `cpu`, `cuda`, `cuda:N` or `metal`. The second part says why `auto` fell back to the CPU, if this build
/// supports a better device.
pub(crate) fn open(asked: &str) -> Result<(Device, Option<String>)> {
    let fail = |why: &str| EngineError::Device { asked: asked.into(), why: why.into() };
    let said = |why: candle_core::Error| fail(&reason(&why));
    let (kind, index) = match asked.split_once(':') {
        Some((kind, index)) => (kind, Some(index.parse().map_err(|_| fail("its number is not a number"))?)),
        None => (asked, None),
    };
    let device = match (kind, index) {
        ("auto" | "", None) => {
            let (device, why) = headtemper_model::fastest();
            let note = why.map(|why| format!("computing on the CPU: {}", reason(&why)));
            return Ok((device, note));
        }
        ("cpu", None) => Device::Cpu,
        ("cuda", index) => headtemper_model::open_cuda(index.unwrap_or(0)).map_err(said)?,
        ("metal", None) if !candle_core::utils::metal_is_available() => {
            return Err(fail("this binary was built without Metal"));
        }
        ("metal", None) => Device::new_metal(0).map_err(said)?,
        _ => return Err(fail("devices are auto, cpu, cuda, cuda:N and metal")),
    };
    Ok((device, None))
}

/// Joins two notes into one.
pub(crate) fn noted(note: Option<String>, more: Option<String>) -> Option<String> {
    note.into_iter().chain(more).reduce(|note, more| format!("{note}; {more}"))
}

/// How a result names the device that it was made on. All cards of one machine are one kind.
pub(crate) fn kind(device: &Device) -> &'static str {
    match device {
        Device::Cpu => "cpu",
        Device::Cuda(_) => "cuda",
        Device::Metal(_) => "metal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_build_does_not_have_is_refused() {
        let why = |asked: &str| open(asked).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(why("tpu").contains("devices are auto, cpu, cuda, cuda:N and metal"));
        for numbered in ["cpu:7", "auto:3", "metal:1", ":0"] {
            assert!(why(numbered).contains("devices are auto, cpu, cuda, cuda:N and metal"), "{numbered}");
        }
        assert!(why("cuda:x").contains("its number is not a number"));
        if !candle_core::utils::cuda_is_available() {
            assert!(why("cuda").contains("built without CUDA") && why("cuda:7").contains("built without CUDA"));
            assert!(matches!(open("auto"), Ok((Device::Cpu, None))));
        }
        assert!(matches!(open("cpu"), Ok((Device::Cpu, None))));
    }
}
