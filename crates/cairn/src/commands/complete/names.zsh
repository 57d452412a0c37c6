
# Names of what the daemon keeps.
_cairn_names() {
    local -a typed names
    typed=("${(@Q)${(z)LBUFFER}}")
    [[ $LBUFFER == *[[:space:]] ]] && typed+=("")
    names=("${(@f)$(cairn complete -- "${(@)typed[2,-1]}" 2>/dev/null)}")
    names=(${names:#})
    if (( $#names )); then
        compadd -Q -a names
    else
        _default
    fi
}
