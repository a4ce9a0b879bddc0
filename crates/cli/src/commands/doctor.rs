//! `temper doctor`: what this machine and this build offer, and whether tiny models compute what they should on it.

use anyhow::Result;
use candle_core::{Device, utils};
use headtemper_engine::{
    available_memory, format_bytes,
    hub::HubEnv,
    verify::{self, Check},
};
use headtemper_model::{Blocks, Level, Products};
use serde_json::{Value, json};

use crate::{Done, args::Doctor, commands::verify::line, ui};

pub(crate) fn run(args: &Doctor) -> Result<Done> {
    let mut facts = facts();
    if !args.json {
        ui::put(&text(&facts))?;
    }
    let (mut devices, mut failed) = (Vec::new(), false);
    for (name, device) in devices_of_this_build() {
        let device = match device {
            Ok(device) => device,
            Err(why) => {
                devices.push(json!({"device": name, "found": false, "why": why}));
                if !args.json {
                    ui::put(&format!("{name:<10} not there: {why}\n"))?;
                }
                continue;
            }
        };
        let mut models = Vec::new();
        for (family, config) in verify::FAMILIES {
            let checks = checks(config, &device)?;
            failed |= checks.iter().any(Check::failed);
            if !args.json {
                ui::put(&told(name, family, &checks))?;
            }
            models.push(json!({"model": family, "checks": checks}));
        }
        devices.push(json!({"device": name, "found": true, "models": models}));
    }
    facts["devices"] = devices.into();
    facts["passed"] = (!failed).into();
    if args.json {
        ui::put_json(&facts)?;
    } else {
        ui::put(if failed {
            "a check FAILED: results of this machine cannot be trusted\n"
        } else {
            "all checks hold\n"
        })?;
    }
    Ok(if failed { Done::CheckFailed } else { Done::Well })
}

/// Checks the laws on a tiny model; on another device than the CPU, also that it gives the CPU's results.
fn checks(config: &str, device: &Device) -> Result<Vec<Check>> {
    let model = verify::tiny(config, device)?;
    let mut checks: Vec<Check> = verify::LAWS.iter().map(|law| law(&*model)).collect();
    if !device.is_cpu() {
        checks.push(verify::same_as(&*model, &*verify::tiny(config, &Device::Cpu)?));
    }
    Ok(checks)
}

/// One line for a model if all its checks hold; otherwise one line more for each check that failed.
fn told(device: &str, family: &str, checks: &[Check]) -> String {
    let failed: String =
        checks.iter().filter(|check| check.failed()).map(|check| format!("  {}", line(check))).collect();
    if failed.is_empty() {
        return format!("{device:<10} {family}, tiny and random: {} checks hold\n", checks.len());
    }
    format!("{device:<10} {family}, tiny and random: FAILED\n{failed}")
}

/// The CPU and the devices that were built in, each opened, or with the reason why it could not be.
fn devices_of_this_build() -> Vec<(&'static str, Result<Device, String>)> {
    let plain = |e: candle_core::Error| headtemper_model::reason(&e);
    let mut devices = vec![("cpu", Ok(Device::Cpu))];
    if utils::cuda_is_available() {
        devices.push(("cuda:0", headtemper_model::open_cuda(0).map_err(plain)));
    }
    if utils::metal_is_available() {
        devices.push(("metal", Device::new_metal(0).map_err(plain)));
    }
    devices
}

fn facts() -> Value {
    let hub = match HubEnv::from_env() {
        Ok(env) => json!({
            "cache": env.cache.display().to_string(),
            "endpoint": env.endpoint(),
            "offline": env.offline,
            "token": env.token.is_some(), // never the token
        }),
        Err(error) => json!({"why": error.to_string()}),
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        "built_with": built_with(),
        "cpu_features": cpu_features(),
        "kernels": {
            "used": Level::best().name(),
            "available": Level::available().iter().map(|level| level.name()).collect::<Vec<_>>(),
            "HEADTEMPER_SIMD": std::env::var("HEADTEMPER_SIMD").ok(),
        },
        "threads": rayon::current_num_threads(),
        "memory_available": available_memory(), // bytes
        "dtypes": {
            "held": ["f32", "bf16", "f16"],
            "held_on_cpu": Blocks::ALL.map(|blocks| blocks.to_string()),
            "computed_on_cpu": "f32",
            "computed_elsewhere": "as held",
        },
        "products_bf16": if Products::bf16_in_hardware() { "in hardware" } else { "emulated" },
        "hub": hub,
    })
}

/// What candle was built with, beyond plain Rust.
fn built_with() -> Vec<&'static str> {
    let parts = [
        ("cuda", utils::cuda_is_available()),
        ("metal", utils::metal_is_available()),
        ("mkl", utils::has_mkl()),
        ("accelerate", utils::has_accelerate()),
    ];
    parts.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
}

/// Which of the instruction sets that matter here the processor has.
fn cpu_features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let features = [
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512dq", is_x86_feature_detected!("avx512dq")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    #[cfg(target_arch = "aarch64")]
    let features = [("neon", std::arch::is_aarch64_feature_detected!("neon"))];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let features: [(&str, bool); 0] = [];
    features.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
}

fn text(facts: &Value) -> String {
    let listed = |value: &Value| match value.as_array().map(Vec::as_slice) {
        None | Some([]) => "none".to_string(),
        Some(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
    };
    let word = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let (kernels, hub) = (&facts["kernels"], &facts["hub"]);
    let chosen = match kernels["HEADTEMPER_SIMD"].as_str() {
        Some(_) => "as HEADTEMPER_SIMD says",
        None => "the fastest; HEADTEMPER_SIMD chooses another",
    };
    let memory = facts["memory_available"].as_u64();
    let hub_line = match hub["why"].as_str() {
        Some(why) => why.to_string(),
        None => format!(
            "{}{}, {}",
            word(&hub["endpoint"]),
            if hub["offline"] == true { ", never asked (HF_HUB_OFFLINE)" } else { "" },
            if hub["token"] == true { "with a token" } else { "without a token" }
        ),
    };
    let lines = [
        ("version", format!("{} on {}", word(&facts["version"]), word(&facts["system"]))),
        ("built with", listed(&facts["built_with"])),
        ("processor", listed(&facts["cpu_features"])),
        ("kernels", format!("{} of {} ({chosen})", word(&kernels["used"]), listed(&kernels["available"]))),
        ("products", format!("f32; of bf16 {} (--products bf16)", word(&facts["products_bf16"]))),
        ("threads", facts["threads"].to_string()),
        ("memory", memory.map_or("unknown".into(), |bytes| format!("{} available", format_bytes(bytes)))),
        (
            "dtypes",
            format!(
                "weights held in f32, bf16 or f16, on the CPU also in {}; computed in f32 on the CPU, elsewhere as held",
                listed(&facts["dtypes"]["held_on_cpu"])
            ),
        ),
        ("hub", hub_line),
        ("cache", word(&hub["cache"])),
    ];
    lines.iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect()
}
