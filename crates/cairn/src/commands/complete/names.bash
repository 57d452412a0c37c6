
# Names of what the daemon keeps come first; where it has none for this place, the words above.
_cairn_names() {
    local typed="${COMP_LINE:0:COMP_POINT}" word colon="" name
    local -a words=() names=()
    read -ra words <<< "$typed"
    [[ $typed == *[[:space:]] ]] && words+=("")
    word="${words[${#words[@]}-1]}"
    if [[ $word != -* || $word == -n* ]]; then
        mapfile -t names < <(command "${words[0]}" complete -- "${words[@]:1}" 2> /dev/null)
    fi
    if [[ ${#names[@]} -eq 0 ]]; then
        _cairn "$@"
        return
    fi
    # Where a colon ends a word, only what is behind the last one is replaced.
    [[ $word == *:* && $COMP_WORDBREAKS == *:* ]] && colon="${word%"${word##*:}"}"
    COMPREPLY=()
    for name in "${names[@]}"; do
        COMPREPLY+=("${name#"$colon"}")
    done
}

complete -F _cairn_names -o bashdefault -o default cairn
