# fish completion for swanctl. Generated from the definition of its commands.
#
# Names of connections, children, pools and authorities and numbers of SAs are asked of the daemon; where it cannot be asked, none are offered.

# A command of the daemon, and a sed program that takes the names from what it says.
function __swanctl_ask
    set -l words (commandline -opc)
    set -l uri
    if set -l place (contains -i -- --uri $words)
        set uri --uri $words[(math $place + 1)]
    end
    swanctl $argv[1] $uri 2>/dev/null | sed -n $argv[2]
end

function __swanctl_command
    for word in (commandline -opc)[2..-1]
        switch $word
            case --initiate -i
                echo initiate
                return
            case --terminate -t
                echo terminate
                return
            case --rekey -R
                echo rekey
                return
            case --redirect -d
                echo redirect
                return
            case --uninstall -U -u
                echo uninstall
                return
            case --install -p
                echo install
                return
            case --list-sas -l
                echo list-sas
                return
            case --monitor-sa -m
                echo monitor-sa
                return
            case --list-pols -P
                echo list-pols
                return
            case --list-conns -L
                echo list-conns
                return
            case --list-authorities -B
                echo list-authorities
                return
            case --list-certs -x
                echo list-certs
                return
            case --list-pools -A
                echo list-pools
                return
            case --list-algs -g
                echo list-algs
                return
            case --flush-certs -f
                echo flush-certs
                return
            case --load-all -q
                echo load-all
                return
            case --load-authorities -b
                echo load-authorities
                return
            case --load-pools -a
                echo load-pools
                return
            case --load-conns -c
                echo load-conns
                return
            case --load-creds -s
                echo load-creds
                return
            case --log -T
                echo log
                return
            case --version -V -v
                echo version
                return
            case --counters -C
                echo counters
                return
            case --reload-settings -r
                echo reload-settings
                return
            case --stats -S
                echo stats
                return
        end
    end
    echo none
end

complete -c swanctl -f
complete -c swanctl -n 'test (__swanctl_command) = none' -l initiate -d 'initiate a connection'
complete -c swanctl -n 'test (__swanctl_command) = none' -l terminate -d 'terminate a connection'
complete -c swanctl -n 'test (__swanctl_command) = none' -l rekey -d 'rekey an SA'
complete -c swanctl -n 'test (__swanctl_command) = none' -l redirect -d 'redirect an IKE_SA'
complete -c swanctl -n 'test (__swanctl_command) = none' -l uninstall -d 'uninstall a trap or shunt policy'
complete -c swanctl -n 'test (__swanctl_command) = none' -l install -d 'install a trap or shunt policy'
complete -c swanctl -n 'test (__swanctl_command) = none' -l list-sas -d 'list currently active IKE_SAs'
complete -c swanctl -n 'test (__swanctl_command) = none' -l monitor-sa -d 'monitor for IKE_SA and CHILD_SA changes'
complete -c swanctl -n 'test (__swanctl_command) = none' -l list-pols -d 'list currently installed policies'
complete -c swanctl -n 'test (__swanctl_command) = none' -l list-conns -d 'list loaded configurations'
complete -c swanctl -n 'test (__swanctl_command) = none' -l list-authorities -d 'list loaded authority configurations'
complete -c swanctl -n 'test (__swanctl_command) = none' -l list-certs -d 'list stored certificates'
complete -c swanctl -n 'test (__swanctl_command) = none' -l list-pools -d 'list loaded pool configurations'
complete -c swanctl -n 'test (__swanctl_command) = none' -l list-algs -d 'show loaded algorithms'
complete -c swanctl -n 'test (__swanctl_command) = none' -l flush-certs -d 'flush cached certificates'
complete -c swanctl -n 'test (__swanctl_command) = none' -l load-all -d 'load credentials, authorities, pools and connections'
complete -c swanctl -n 'test (__swanctl_command) = none' -l load-authorities -d '(re-)load authority configuration'
complete -c swanctl -n 'test (__swanctl_command) = none' -l load-pools -d '(re-)load pool configuration'
complete -c swanctl -n 'test (__swanctl_command) = none' -l load-conns -d '(re-)load connection configuration'
complete -c swanctl -n 'test (__swanctl_command) = none' -l load-creds -d '(re-)load credentials'
complete -c swanctl -n 'test (__swanctl_command) = none' -l log -d 'trace logging output'
complete -c swanctl -n 'test (__swanctl_command) = none' -l version -d 'show version information'
complete -c swanctl -n 'test (__swanctl_command) = none' -l counters -d 'list or reset IKE event counters'
complete -c swanctl -n 'test (__swanctl_command) = none' -l reload-settings -d 'reload daemon settings'
complete -c swanctl -n 'test (__swanctl_command) = none' -l stats -d 'show daemon stats information'
complete -c swanctl -l debug -s v -x -d 'set debug level, default: 1'
complete -c swanctl -l options -s + -r -F -d 'read command line options from file'
complete -c swanctl -l uri -s u -x -d 'service URI to connect to'
complete -c swanctl -n 'test (__swanctl_command) = initiate' -l child -s c -x -a '(__swanctl_ask --list-conns \'s/^  \\\\([^ ].*\\\\): [A-Z][A-Z_]*, .*/\\\\1/p\')' -d 'initiate a CHILD_SA configuration'
complete -c swanctl -n 'test (__swanctl_command) = initiate' -l ike -s i -x -a '(__swanctl_ask --list-conns \'s/^\\\\([^ ].*\\\\): IKEv.*/\\\\1/p\')' -d 'initiate an IKE_SA, or name of child\'s parent'
complete -c swanctl -n 'test (__swanctl_command) = initiate' -l timeout -s t -x -d 'timeout in seconds before detaching'
complete -c swanctl -n 'test (__swanctl_command) = initiate' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = initiate' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = initiate' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = initiate' -l loglevel -s l -x -d 'verbosity of redirected log'
complete -c swanctl -n 'test (__swanctl_command) = terminate' -l child -s c -x -a '(__swanctl_ask --list-conns \'s/^  \\\\([^ ].*\\\\): [A-Z][A-Z_]*, .*/\\\\1/p\')' -d 'terminate by CHILD_SA name'
complete -c swanctl -n 'test (__swanctl_command) = terminate' -l ike -s i -x -a '(__swanctl_ask --list-conns \'s/^\\\\([^ ].*\\\\): IKEv.*/\\\\1/p\')' -d 'terminate by IKE_SA name'
complete -c swanctl -n 'test (__swanctl_command) = terminate' -l child-id -s C -x -a '(__swanctl_ask --list-sas \'s/^  [^ ].*: #\\\\([0-9]*\\\\), .*/\\\\1/p\')' -d 'terminate by CHILD_SA unique identifier'
complete -c swanctl -n 'test (__swanctl_command) = terminate' -l ike-id -s I -x -a '(__swanctl_ask --list-sas \'s/^[^ ].*: #\\\\([0-9]*\\\\), .*/\\\\1/p\')' -d 'terminate by IKE_SA unique identifier'
complete -c swanctl -n 'test (__swanctl_command) = terminate' -l force -s f -d 'terminate IKE_SA without waiting, unless timeout is set'
complete -c swanctl -n 'test (__swanctl_command) = terminate' -l timeout -s t -x -d 'timeout in seconds before detaching'
complete -c swanctl -n 'test (__swanctl_command) = terminate' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = terminate' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = terminate' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = terminate' -l loglevel -s l -x -d 'verbosity of redirected log'
complete -c swanctl -n 'test (__swanctl_command) = rekey' -l child -s c -x -a '(__swanctl_ask --list-conns \'s/^  \\\\([^ ].*\\\\): [A-Z][A-Z_]*, .*/\\\\1/p\')' -d 'rekey by CHILD_SA name'
complete -c swanctl -n 'test (__swanctl_command) = rekey' -l ike -s i -x -a '(__swanctl_ask --list-conns \'s/^\\\\([^ ].*\\\\): IKEv.*/\\\\1/p\')' -d 'rekey by IKE_SA name'
complete -c swanctl -n 'test (__swanctl_command) = rekey' -l child-id -s C -x -a '(__swanctl_ask --list-sas \'s/^  [^ ].*: #\\\\([0-9]*\\\\), .*/\\\\1/p\')' -d 'rekey by CHILD_SA unique identifier'
complete -c swanctl -n 'test (__swanctl_command) = rekey' -l ike-id -s I -x -a '(__swanctl_ask --list-sas \'s/^[^ ].*: #\\\\([0-9]*\\\\), .*/\\\\1/p\')' -d 'rekey by IKE_SA unique identifier'
complete -c swanctl -n 'test (__swanctl_command) = rekey' -l reauth -s a -d 'reauthenticate instead of rekey an IKEv2 SA'
complete -c swanctl -n 'test (__swanctl_command) = rekey' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = rekey' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = rekey' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = redirect' -l ike -s i -x -a '(__swanctl_ask --list-conns \'s/^\\\\([^ ].*\\\\): IKEv.*/\\\\1/p\')' -d 'redirect by IKE_SA name'
complete -c swanctl -n 'test (__swanctl_command) = redirect' -l ike-id -s I -x -a '(__swanctl_ask --list-sas \'s/^[^ ].*: #\\\\([0-9]*\\\\), .*/\\\\1/p\')' -d 'redirect by IKE_SA unique identifier'
complete -c swanctl -n 'test (__swanctl_command) = redirect' -l peer-ip -s p -x -d 'redirect by the peer\'s address'
complete -c swanctl -n 'test (__swanctl_command) = redirect' -l peer-id -s d -x -d 'redirect by the peer\'s identity'
complete -c swanctl -n 'test (__swanctl_command) = redirect' -l gateway -s g -x -d 'target gateway (IP or FQDN)'
complete -c swanctl -n 'test (__swanctl_command) = redirect' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = redirect' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = redirect' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = uninstall' -l child -s c -x -a '(__swanctl_ask --list-conns \'s/^  \\\\([^ ].*\\\\): [A-Z][A-Z_]*, .*/\\\\1/p\')' -d 'CHILD_SA configuration to use'
complete -c swanctl -n 'test (__swanctl_command) = uninstall' -l ike -s i -x -a '(__swanctl_ask --list-conns \'s/^\\\\([^ ].*\\\\): IKEv.*/\\\\1/p\')' -d 'name of the connection that has it'
complete -c swanctl -n 'test (__swanctl_command) = uninstall' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = uninstall' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = uninstall' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = install' -l child -s c -x -a '(__swanctl_ask --list-conns \'s/^  \\\\([^ ].*\\\\): [A-Z][A-Z_]*, .*/\\\\1/p\')' -d 'CHILD_SA configuration to use'
complete -c swanctl -n 'test (__swanctl_command) = install' -l ike -s i -x -a '(__swanctl_ask --list-conns \'s/^\\\\([^ ].*\\\\): IKEv.*/\\\\1/p\')' -d 'name of the connection that has it'
complete -c swanctl -n 'test (__swanctl_command) = install' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = install' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = install' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = list-sas' -l ike -s i -x -a '(__swanctl_ask --list-conns \'s/^\\\\([^ ].*\\\\): IKEv.*/\\\\1/p\')' -d 'filter IKE_SAs by name'
complete -c swanctl -n 'test (__swanctl_command) = list-sas' -l ike-id -s I -x -a '(__swanctl_ask --list-sas \'s/^[^ ].*: #\\\\([0-9]*\\\\), .*/\\\\1/p\')' -d 'filter IKE_SAs by unique identifier'
complete -c swanctl -n 'test (__swanctl_command) = list-sas' -l child -s c -x -a '(__swanctl_ask --list-conns \'s/^  \\\\([^ ].*\\\\): [A-Z][A-Z_]*, .*/\\\\1/p\')' -d 'filter CHILD_SAs by name'
complete -c swanctl -n 'test (__swanctl_command) = list-sas' -l child-id -s C -x -a '(__swanctl_ask --list-sas \'s/^  [^ ].*: #\\\\([0-9]*\\\\), .*/\\\\1/p\')' -d 'filter CHILD_SAs by unique identifier'
complete -c swanctl -n 'test (__swanctl_command) = list-sas' -l noblock -s n -d 'don\'t wait for IKE_SAs in use'
complete -c swanctl -n 'test (__swanctl_command) = list-sas' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = list-sas' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = list-sas' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = monitor-sa' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = monitor-sa' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = monitor-sa' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = list-pols' -l child -s c -x -a '(__swanctl_ask --list-conns \'s/^  \\\\([^ ].*\\\\): [A-Z][A-Z_]*, .*/\\\\1/p\')' -d 'filter policies by CHILD_SA config name'
complete -c swanctl -n 'test (__swanctl_command) = list-pols' -l trap -s t -d 'list trap policies'
complete -c swanctl -n 'test (__swanctl_command) = list-pols' -l drop -s d -d 'list drop policies'
complete -c swanctl -n 'test (__swanctl_command) = list-pols' -l pass -s p -d 'list bypass policies'
complete -c swanctl -n 'test (__swanctl_command) = list-pols' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = list-pols' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = list-pols' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = list-conns' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = list-conns' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = list-conns' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = list-authorities' -l name -s n -x -a '(__swanctl_ask --list-authorities \'s/^\\\\([^ ].*\\\\):$/\\\\1/p\')' -d 'filter by authority name'
complete -c swanctl -n 'test (__swanctl_command) = list-authorities' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = list-authorities' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = list-authorities' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = list-certs' -l subject -s s -x -d 'filter by certificate subject'
complete -c swanctl -n 'test (__swanctl_command) = list-certs' -l type -s t -x -a 'x509 x509_ac x509_crl ocsp_response pubkey' -d 'filter by certificate type'
complete -c swanctl -n 'test (__swanctl_command) = list-certs' -l flag -s f -x -a 'none ca aa ocsp any' -d 'filter by X.509 certificate flag'
complete -c swanctl -n 'test (__swanctl_command) = list-certs' -l pem -s p -d 'print PEM encoding of certificate'
complete -c swanctl -n 'test (__swanctl_command) = list-certs' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = list-certs' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = list-certs' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = list-certs' -l short -s S -d 'omit some certificate details'
complete -c swanctl -n 'test (__swanctl_command) = list-certs' -l utc -s U -d 'use UTC for time fields'
complete -c swanctl -n 'test (__swanctl_command) = list-pools' -l leases -s l -d 'list leases of each pool'
complete -c swanctl -n 'test (__swanctl_command) = list-pools' -l name -s n -x -a '(__swanctl_ask --list-pools \'s/^\\\\([^ ]*\\\\) .*/\\\\1/p\')' -d 'filter pools by name'
complete -c swanctl -n 'test (__swanctl_command) = list-pools' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = list-pools' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = list-pools' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = list-algs' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = list-algs' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = list-algs' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = flush-certs' -l type -s t -x -a 'x509 x509_ac x509_crl ocsp_response pubkey' -d 'only certificates of this type'
complete -c swanctl -n 'test (__swanctl_command) = flush-certs' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = flush-certs' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = flush-certs' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = load-all' -l clear -s c -d 'clear previously loaded credentials'
complete -c swanctl -n 'test (__swanctl_command) = load-all' -l noprompt -s n -d 'do not prompt for passwords'
complete -c swanctl -n 'test (__swanctl_command) = load-all' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = load-all' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = load-all' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = load-all' -l file -s f -r -F -d 'custom path to swanctl.conf'
complete -c swanctl -n 'test (__swanctl_command) = load-all' -l dry-run -s d -d 'only say what loading would do; exit code 3 if an SA would restart or end'
complete -c swanctl -n 'test (__swanctl_command) = load-authorities' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = load-authorities' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = load-authorities' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = load-authorities' -l file -s f -r -F -d 'custom path to swanctl.conf'
complete -c swanctl -n 'test (__swanctl_command) = load-pools' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = load-pools' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = load-pools' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = load-pools' -l file -s f -r -F -d 'custom path to swanctl.conf'
complete -c swanctl -n 'test (__swanctl_command) = load-conns' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = load-conns' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = load-conns' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = load-conns' -l file -s f -r -F -d 'custom path to swanctl.conf'
complete -c swanctl -n 'test (__swanctl_command) = load-conns' -l dry-run -s d -d 'only say what loading would do; exit code 3 if an SA would restart or end'
complete -c swanctl -n 'test (__swanctl_command) = load-creds' -l clear -s c -d 'clear previously loaded credentials'
complete -c swanctl -n 'test (__swanctl_command) = load-creds' -l noprompt -s n -d 'do not prompt for passwords'
complete -c swanctl -n 'test (__swanctl_command) = load-creds' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = load-creds' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = load-creds' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = load-creds' -l file -s f -r -F -d 'custom path to swanctl.conf'
complete -c swanctl -n 'test (__swanctl_command) = log' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = log' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = log' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = version' -l daemon -s d -d 'query daemon version'
complete -c swanctl -n 'test (__swanctl_command) = version' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = version' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = version' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = counters' -l name -s n -x -a '(__swanctl_ask --list-conns \'s/^\\\\([^ ].*\\\\): IKEv.*/\\\\1/p\')' -d 'connection name, omit for global counters'
complete -c swanctl -n 'test (__swanctl_command) = counters' -l all -s a -d 'get/reset counters for all tracked connections'
complete -c swanctl -n 'test (__swanctl_command) = counters' -l reset -s R -d 'reset the counters'
complete -c swanctl -n 'test (__swanctl_command) = counters' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = counters' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = counters' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = reload-settings' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = reload-settings' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = reload-settings' -l json -s j -d 'print JSON'
complete -c swanctl -n 'test (__swanctl_command) = stats' -l raw -s r -d 'dump raw response message'
complete -c swanctl -n 'test (__swanctl_command) = stats' -l pretty -s P -d 'dump raw response message in pretty print'
complete -c swanctl -n 'test (__swanctl_command) = stats' -l json -s j -d 'print JSON'
