complete -c cygnetd -l config -d 'Settings file; the default may be missing, a named one not' -r -F
complete -c cygnetd -l swanctl -d 'Directory of swanctl.conf for --check, instead of the configured one' -r -F
complete -c cygnetd -l check -d 'Check the settings and swanctl.conf, print all findings, and exit: 0 good, 1 warnings, 2 errors'
complete -c cygnetd -l json -d 'Findings of --check as JSON'
complete -c cygnetd -s h -l help -d 'Print help'
complete -c cygnetd -s V -l version -d 'Print version'
