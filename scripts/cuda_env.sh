# Sourced by scripts that run built files on a GPU. Finds the libraries that the binary opens at run time, in a toolkit or in a Python
# environment with torch, and says where the built files and the binary are and which sources they were built from. Files built from
# other sources than this tree's are refused, so that nobody checks or measures them unknowingly; STALE=1 accepts them.

built=${HEADTEMPER_BUILT:-$PWD/target/cuda}
[ -d "$built" ] || { echo "there is no $built: scripts/build-cuda.sh builds it, on any machine" >&2; exit 2; }
sources=$(cat "$built/sources" 2> /dev/null || echo unknown)
echo "built files: $built, of sources $sources"
if ! tree=$(scripts/source_hash.sh); then
    echo "there are no sources here: whether these are the newest is not checked"
elif [ "$sources" != "$tree" ]; then
    echo "THESE ARE NOT OF THIS TREE, whose sources are $tree: scripts/build-cuda.sh builds it, STALE=1 takes them nevertheless" >&2
    [ "${STALE-}" = 1 ] || exit 2
    sources="$sources, not those of this tree ($tree)"
fi
named() { tr ':' '\n' <<< "${LD_LIBRARY_PATH-}" | while read -r folder; do [ ! -e "$folder/libcublas.so.13" ] || echo "$folder"; done; }
if [ -z "$(named)" ] && ! ldconfig -p | grep 'libcublas\.so\.13' > /dev/null; then
    # Never a stubs folder: its libcuda.so would be opened instead of the driver's.
    find_library() { find / -name "$1*" -not -path '*/stubs/*' -not -path '/proc/*' 2> /dev/null | head -n 1 || true; }
    cublas=$(find_library libcublas.so.13)
    if [ -z "$cublas" ]; then
        echo "libcublas.so.13 is nowhere on this machine; install CUDA 13's libraries" >&2
        exit 2
    fi
    folders=$(dirname "$cublas")
    for name in libcurand.so.10 libnvrtc.so.13; do
        other=$(find_library "$name")
        folders+=:$(dirname "${other:-$cublas}")
    done
    export LD_LIBRARY_PATH=$folders${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
# candle's own kernels are compiled for the card at first use, and kept in this cache.
export CUDA_CACHE_PATH=${CUDA_CACHE_PATH:-$built/cache} TEMPER=${TEMPER:-$built/temper}
