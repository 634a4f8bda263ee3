# Sourced: prints the interpreters of Python 3.10 to 3.13 on this machine, one for each version.
pythons() {
    local version candidate
    for version in 3.10 3.11 3.12 3.13; do
        for candidate in "$(command -v "python$version" || true)" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python; do
            if [ -x "$candidate" ] && "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" 2>/dev/null; then
                echo "$version $candidate"
                break
            fi
        done
    done
}
