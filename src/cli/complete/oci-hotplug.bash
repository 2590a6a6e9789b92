# bash completion for oci-hotplug, which itself says what fits (oci-hotplug complete).

_oci_hotplug() {
    local IFS=$' \t\n' word i
    local -a words=()
    # bash cuts words at ":" and "=" (COMP_WORDBREAKS). They are joined again, but "--option=value"
    # stays two words.
    for ((i = 1; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if ((${#words[@]} == 0)); then
            words+=("$word")
        elif [[ $word == = && ${words[-1]} == --* ]]; then
            ((i < COMP_CWORD)) || words+=('')
        elif [[ ${words[-1]} != --* ]] && [[ $word == [:=]* || ${words[-1]} == *[:=] ]]; then
            words[-1]+=$word
        else
            words+=("$word")
        fi
    done
    local current=${words[-1]-}
    mapfile -t COMPREPLY < <(oci-hotplug complete -- "${words[@]}" 2>/dev/null)
    if [[ ${COMPREPLY[0]-} == :files ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    else
        COMPREPLY=("${COMPREPLY[@]%%$'\t'*}")
    fi
    # Only what is behind the last separator is bash's current word.
    local cut=${current%"${current##*[:=]}"}
    if [[ $cut ]]; then
        COMPREPLY=("${COMPREPLY[@]#"$cut"}")
    fi
}

complete -F _oci_hotplug oci-hotplug
