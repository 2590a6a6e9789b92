# fish completion for oci-hotplug, which itself says what fits (oci-hotplug complete).

function __oci_hotplug_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l lines (oci-hotplug complete -- $words[2..-1] "$current" 2>/dev/null)
    if test "$lines[1]" = ":files"
        __fish_complete_path "$current"
    else if set -q lines[1]
        printf '%s\n' $lines
    end
end

complete -c oci-hotplug -f -a '(__oci_hotplug_complete)'
