#!/usr/bin/env bash
# Makes packages of the release build that run without a compiler: an archive that may be unpacked
# anywhere, and a .deb. They hold the program, the starter model and every library that a bare Debian 12
# or Ubuntu 24.04 lacks; "ringlet generate --model starter --prompt ..." works at once.
#
#   scripts/package.sh [FOLDER]          makes both in FOLDER; default build/package
#   scripts/package.sh --check [FOLDER]  and looks inside: contents, paths, a picture made where nothing
#                                        else is; the archive is packed fast rather than small
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
check=no
level=6
case ${1:-} in
  --help|-h) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  --check) check=yes; level=1; shift ;;
  -*) echo "package: error: unknown option '$1'; the options are --check and --help" >&2; exit 2 ;;
esac
out=$(mkdir -p "${1:-$root/build/package}" && cd "${1:-$root/build/package}" && pwd)
build=$root/build/release

say() { printf 'package: %s\n' "$*"; }
fail() { printf 'package: error: %s\n' "$*" >&2; exit 1; }

[ -x "$build/bin/ringlet" ] || fail "build the release preset first: cmake --preset release && cmake --build --preset release"
version=$(sed -n 's/^CMAKE_PROJECT_VERSION:STATIC=//p' "$build/CMakeCache.txt")
name=ringlet-$version-linux-$(uname -m)
stage=$out/$name
rm -rf "$stage" "$out/deb"
mkdir -p "$stage/lib/ringlet" "$stage/share/doc/ringlet/licences"

# What every Debian 12, Ubuntu 24.04 and later system has: the C and C++ libraries.
present='^(ld-linux-x86-64|libc|libm|libdl|libpthread|librt|libresolv|libutil|libstdc\+\+|libgcc_s)\.so'

install_program() {
  cmake --install "$build" --prefix "$stage" --component program --strip >/dev/null
  # The run path of an installed program also names the LibTorch that it was built with.
  cat >"$out/run_path.cmake" <<TEXT
file(RPATH_SET FILE "$stage/bin/ringlet" NEW_RPATH "\\\$ORIGIN/../lib/ringlet")
TEXT
  cmake -P "$out/run_path.cmake"
  rm "$out/run_path.cmake"
}

# LibTorch with what it links, OpenCV's picture readers with what they link, ICU, SentencePiece, OpenSSL.
copy_libraries() {
  local library path owner
  ldd "$build/bin/ringlet" | awk '$2 == "=>" {print $1, $3}' | while read -r library path; do
    [[ $library =~ $present ]] && continue
    [ -f "$path" ] || fail "$library is not found by $build/bin/ringlet"
    cp -L --preserve=mode "$path" "$stage/lib/ringlet/$library"
    owner=$(dpkg-query -S "*$(readlink -f "$path")" 2>/dev/null | head -n 1 | cut -d: -f1) || true
    [ -z "$owner" ] || [ ! -f "/usr/share/doc/$owner/copyright" ] ||
      cp -L "/usr/share/doc/$owner/copyright" "$stage/share/doc/ringlet/licences/$owner"
  done
}

copy_texts() {
  local torch licence
  cp "$root/LICENSE" "$stage/share/doc/ringlet/copyright"
  torch=$(dirname "$(sed -n 's/^LibTorch_INCLUDE_DIR:PATH=//p' "$build/CMakeCache.txt")")
  find "$torch/.." -maxdepth 4 -path '*.dist-info/*' \( -iname 'LICENSE*' -o -iname 'License*' -o -iname 'NOTICE*' \) -type f |
    while read -r licence; do
      cp "$licence" "$stage/share/doc/ringlet/licences/$(basename "${licence%%.dist-info/*}")-$(basename "$licence")"
    done
}

make_archive() {
  tar -C "$out" --owner=0 --group=0 --sort=name -cf - "$name" | gzip -n -"$level" >"$out/$name.tar.gz"
  say "$out/$name.tar.gz: $(($(stat -c %s "$out/$name.tar.gz") / 1000000)) MB"
}

make_deb() {
  command -v dpkg-deb >/dev/null || { say "no .deb: dpkg-deb is not installed"; return; }
  local deb=$out/ringlet_${version}_$(dpkg --print-architecture).deb
  mkdir -p "$out/deb/DEBIAN"
  cp -al "$stage" "$out/deb/usr"
  cat >"$out/deb/DEBIAN/control" <<TEXT
Package: ringlet
Version: $version
Architecture: $(dpkg --print-architecture)
Maintainer: ringlet maintainers <maintainers@users.noreply.example>
Depends: libc6 (>= $(getconf GNU_LIBC_VERSION | cut -d' ' -f2)), libstdc++6 (>= $(c++ -dumpversion)), libgcc-s1
Installed-Size: $(du -sk "$stage" | cut -f1)
Suggests: openmpi-bin
Section: graphics
Priority: optional
Description: small adapters for text-to-image models and other networks
 Trains, merges, converts and measures adapters. Holds its own LibTorch (for
 the CPU) and a small model to start with.
TEXT
  dpkg-deb --root-owner-group -Zgzip -z"$level" --build "$out/deb" "$deb" >/dev/null
  rm -r "$out/deb"
  say "$deb: $(($(stat -c %s "$deb") / 1000000)) MB"
}

# Nothing of the build, and nothing that the program asks for is missing.
check_contents() {
  local other
  other=$(tar -tzf "$out/$name.tar.gz" | sed "s|^$name/||" | grep -vE \
    '^($|bin/(ringlet)?$|lib/(ringlet/(lib[^/]+\.so[^/]*)?)?$|share/($|ringlet/($|starter/)|doc/($|ringlet/($|copyright$|licences/))))') || true
  [ -z "$other" ] || fail "the archive holds what it should not: $other"
  if grep -qF "$root/" "$stage/bin/ringlet"; then fail "the program names the folder of its build, $root"; fi
  readelf -d "$stage/bin/ringlet" | grep -E 'R(UN)?PATH' | grep -qF '[$ORIGIN/../lib/ringlet]' ||
    fail "the program's run path is not \$ORIGIN/../lib/ringlet"
}

# A root folder with the C and C++ libraries, the unpacked archive and nothing else.
check_picture() {
  local bare=$out/bare library path
  rm -rf "$bare"
  mkdir -p "$bare/tmp" "$bare/opt" "$bare/proc"
  tar -C "$bare/opt" -xzf "$out/$name.tar.gz"
  ldd "$build/bin/ringlet" | awk '$2 == "=>" {print $1, $3} $1 ~ /^\// {print $1, $1}' | while read -r library path; do
    [[ $(basename "$library") =~ $present ]] || continue
    mkdir -p "$bare$(dirname "$path")"
    cp -L "$path" "$bare$path"
  done
  # The program's run path is found through /proc. Without root's rights, in a namespace of users.
  local enter=(unshare -m)
  [ "$(id -u)" -eq 0 ] || enter=(unshare -rm)
  "${enter[@]}" bash -c 'mount --rbind /proc "$0/proc" && exec env -i OMP_NUM_THREADS=1 "$(command -v chroot)" "$0" "$@"' \
    "$bare" "/opt/$name/bin/ringlet" generate --model starter --prompt "red heart" --steps 4 --out /tmp/heart.png ||
    fail "the unpacked program made no picture"
  [ -s "$bare/tmp/heart.png" ] || fail "the unpacked program wrote no picture"
  rm -rf "$bare"
  say "checked: contents, paths, and a picture made in a bare root"
}

install_program
copy_libraries
copy_texts
make_archive
make_deb
if [ "$check" = yes ]; then
  check_contents
  check_picture
fi
rm -rf "$stage"
