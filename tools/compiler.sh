# Sourced by ./try and ./check: without a C++ compiler of the machine, the build takes the one of the ziglang wheel.
if ! command -v "${CXX:-c++}" >/dev/null 2>&1; then
  if ! .venv/bin/python -I -c 'import ziglang' 2>/dev/null; then
    echo "no C++ compiler here: taking the one of the ziglang package"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check 'ziglang>=0.13' ||
      { echo "no C++ compiler, and no ziglang to be had: apt-get install g++" >&2; exit 2; }
  fi
  mkdir -p .venv/compiler
  for language in cc c++; do
    printf '#!/bin/sh\nexec "%s" -I -m ziglang %s "$@"\n' "$PWD/.venv/bin/python" "$language" > ".venv/compiler/$language"
    chmod +x ".venv/compiler/$language"
  done
  CC="$PWD/.venv/compiler/cc" CXX="$PWD/.venv/compiler/c++"
  export CC CXX
fi
