
# Names of what the daemon keeps.
function __fish_cairn_names
    set -l words (commandline -opc) (commandline -ct)
    cairn complete -- $words[2..-1] 2>/dev/null
end
complete -c cairn -a "(__fish_cairn_names)"
