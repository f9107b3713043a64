# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_cygnet_global_optspecs
    string join \n u/uri= h/help V/version
end

function __fish_cygnet_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_cygnet_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_cygnet_using_subcommand
    set -l cmd (__fish_cygnet_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c cygnet -n "__fish_cygnet_needs_command" -s u -l uri -d 'Socket of the daemon' -r
complete -c cygnet -n "__fish_cygnet_needs_command" -s h -l help -d 'Print help'
complete -c cygnet -n "__fish_cygnet_needs_command" -s V -l version -d 'Print version'
complete -c cygnet -n "__fish_cygnet_needs_command" -f -a "status" -d 'Show every configured child: up, connecting, retrying or refused, and why it last ended or failed. Ends with 3 when one is neither up nor waiting for traffic'
complete -c cygnet -n "__fish_cygnet_needs_command" -f -a "backend-sas" -d 'Show every SA that the data path holds, and the CHILD SA that each belongs to. Ends with 3 when one belongs to none, which is normal only for the moment in which it is installed or removed'
complete -c cygnet -n "__fish_cygnet_needs_command" -f -a "guards" -d 'Show what an earlier run of the daemon left blocked and no child that is trapped, started or up has claimed: the guards of connections that are gone. With --drop-unclaimed they are taken down'
complete -c cygnet -n "__fish_cygnet_needs_command" -f -a "simulate" -d 'Have a simulated device go wrong: refuse, lose or forget something, go down, come up, vanish. Tells how many SAs, policies, reports or devices it is about. Only where the daemon simulates NICs (backend.userspace.simulate_packet_device)'
complete -c cygnet -n "__fish_cygnet_needs_command" -f -a "why" -d 'Walk one packet through this gateway, from or to either side of a tunnel, and say where it stops and what repairs that. Ends with 0 when nothing is in its way, 1 when something is, 2 when that cannot be found out'
complete -c cygnet -n "__fish_cygnet_needs_command" -f -a "doctor" -d 'Look at devices and what each can carry, children against their devices, ports, privileges, forwarding, routes, policies, paths and files, and say what to do about each doubt. Ends with 0 when all is well, 1 with warnings, 2 with errors or when the daemon does not answer'
complete -c cygnet -n "__fish_cygnet_needs_command" -f -a "explain" -d 'Print the `ip xfrm` commands equal to what is installed for a connection, or would be where it is not up: guard, policies, SAs (keys are masked), and the routes and rules that lead traffic into the tunnel. In order of installation, each block with the reason for it'
complete -c cygnet -n "__fish_cygnet_needs_command" -f -a "capture" -d 'Write the packets of a connection to a pcapng file: in clear (interface `inner`), and as ESP and IKE (interface `outer`), with the SA, sequence number and generation of each, and the reason where one was dropped. Never holds up traffic: what cannot be written in time is lost and counted. Ends with Ctrl-C or at a limit'
complete -c cygnet -n "__fish_cygnet_needs_command" -f -a "history" -d 'Show the past: what each child has carried over all its rekeys and runs of the daemon, then each generation of its CHILD SAs, the newest first, with SPIs, algorithms, the mode really in use, counters and why it ended'
complete -c cygnet -n "__fish_cygnet_needs_command" -f -a "events" -d 'Show what has happened, the oldest first, or with --follow what happens'
complete -c cygnet -n "__fish_cygnet_needs_command" -f -a "log" -d 'Have more lines in the daemon\'s log for a while, of one connection (or of all: \'*\'), then fall back by itself; without arguments: show what is raised and until when'
complete -c cygnet -n "__fish_cygnet_needs_command" -f -a "webhook" -d 'Show webhooks and what they were told; send a test; deliver again; enable or disable one; make a secret'
complete -c cygnet -n "__fish_cygnet_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c cygnet -n "__fish_cygnet_using_subcommand status" -s n -l interval -d 'Between two looks, in seconds' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand status" -l sort -d 'In this order: name, throughput or state' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand status" -l count -d 'End after so many looks' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand status" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c cygnet -n "__fish_cygnet_using_subcommand status" -s u -l uri -d 'Socket of the daemon' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand status" -l json -d 'Print JSON; with --watch one object for each look'
complete -c cygnet -n "__fish_cygnet_using_subcommand status" -s w -l watch -d 'Go on showing it, with what each child carries now and what is left until it is rekeyed: a screen on a terminal (s: sort, d: not up only, arrows: scroll, q: quit), lines elsewhere'
complete -c cygnet -n "__fish_cygnet_using_subcommand status" -l down -d 'Only children that are not up'
complete -c cygnet -n "__fish_cygnet_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cygnet -n "__fish_cygnet_using_subcommand backend-sas" -s u -l uri -d 'Socket of the daemon' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand backend-sas" -l json -d 'Print JSON'
complete -c cygnet -n "__fish_cygnet_using_subcommand backend-sas" -s h -l help -d 'Print help'
complete -c cygnet -n "__fish_cygnet_using_subcommand guards" -s u -l uri -d 'Socket of the daemon' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand guards" -l drop-unclaimed -d 'Take them down: their traffic flows in clear from now on'
complete -c cygnet -n "__fish_cygnet_using_subcommand guards" -l json -d 'Print JSON'
complete -c cygnet -n "__fish_cygnet_using_subcommand guards" -s h -l help -d 'Print help'
complete -c cygnet -n "__fish_cygnet_using_subcommand simulate" -l device -d 'Name of the device, where there are several' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand simulate" -l spi -d 'Only SAs with this SPI (hexadecimal)' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand simulate" -l child -d 'Only what belongs to this child: CONNECTION/CHILD or CHILD' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand simulate" -l direction -d 'Only inbound or outbound SAs and policies' -r -f -a "in\t''
out\t''"
complete -c cygnet -n "__fish_cygnet_using_subcommand simulate" -l tell -d 'What is told of entries that vanish' -r -f -a "lost\t''
resync\t''
nothing\t''"
complete -c cygnet -n "__fish_cygnet_using_subcommand simulate" -l unit -d 'The limit that is reached' -r -f -a "time\t''
bytes\t''
packets\t''"
complete -c cygnet -n "__fish_cygnet_using_subcommand simulate" -l count -d 'How many reports or operations' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand simulate" -l packets -d 'Packets that SAs appear to have carried' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand simulate" -l bytes -d 'Octets that SAs appear to have carried' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand simulate" -l step -d 'The step of an install that is refused' -r -f -a "guard\t''
inbound-policy\t''
outbound-policy\t''
inbound-sa\t''
outbound-sa\t''
activate\t''
update-sa\t''"
complete -c cygnet -n "__fish_cygnet_using_subcommand simulate" -l mode -d 'Only what asks for this offload is refused' -r -f -a "packet\t''
crypto\t''
no\t''"
complete -c cygnet -n "__fish_cygnet_using_subcommand simulate" -l error -d 'The error' -r -f -a "unsupported\t''
full\t''
unavailable\t''
system\t''"
complete -c cygnet -n "__fish_cygnet_using_subcommand simulate" -l skip -d 'How many pass before the first is refused' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand simulate" -s u -l uri -d 'Socket of the daemon' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand simulate" -s h -l help -d 'Print help'
complete -c cygnet -n "__fish_cygnet_using_subcommand why" -l source-port -d 'Source port, where selectors look at it' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand why" -l size -d 'Length of the packet in octets, its IP header included: does it fit?' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand why" -l in -d 'Link that the packet arrives on, where it is not the one that its source is behind' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand why" -s u -l uri -d 'Socket of the daemon' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand why" -l json -d 'Print JSON'
complete -c cygnet -n "__fish_cygnet_using_subcommand why" -s h -l help -d 'Print help'
complete -c cygnet -n "__fish_cygnet_using_subcommand doctor" -s u -l uri -d 'Socket of the daemon' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand doctor" -l json -d 'Print JSON'
complete -c cygnet -n "__fish_cygnet_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c cygnet -n "__fish_cygnet_using_subcommand explain" -s u -l uri -d 'Socket of the daemon' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand explain" -l json -d 'Print JSON'
complete -c cygnet -n "__fish_cygnet_using_subcommand explain" -s h -l help -d 'Print help'
complete -c cygnet -n "__fish_cygnet_using_subcommand capture" -l child -d 'Only packets of this child; IKE messages are left out then' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand capture" -s w -l write -d 'File to write, which only its owner may read; `-` is the standard output, as for `| tshark -r -`' -r -F
complete -c cygnet -n "__fish_cygnet_using_subcommand capture" -l keys -d 'Directory for Wireshark\'s tables of keys, `esp_sa` and `ikev2_decryption_table`: those of the SAs captured, also of those that replace them meanwhile. Only where the daemon may give keys out (debug.export_keys). It tells of that in its log and by an event' -r -F
complete -c cygnet -n "__fish_cygnet_using_subcommand capture" -l duration -d 'End after this time, such as 30s or 5m' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand capture" -l packets -d 'End after so many packets, inner and outer ones together' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand capture" -l size -d 'End when the file has this size, such as 10M; the last packet is written whole' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand capture" -s u -l uri -d 'Socket of the daemon' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand capture" -l ike -d 'IKE messages as well, with --child; without, they are there anyway. Alone, where the data path shows no packets (the kernel\'s)'
complete -c cygnet -n "__fish_cygnet_using_subcommand capture" -l json -d 'Print the summary as JSON'
complete -c cygnet -n "__fish_cygnet_using_subcommand capture" -s h -l help -d 'Print help'
complete -c cygnet -n "__fish_cygnet_using_subcommand history" -l connection -d 'Only this connection' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand history" -l child -d 'Only children of this name' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand history" -l gateway -d 'Of another gateway that keeps its history in the same database, or of all of them' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand history" -l since -d 'What was there at this moment or later. Moments are local: how long ago (90s, 15m, 2h30m, 7d), a time of day (03:12, the last one), a date, both ("2026-01-31 03:12"), today, yesterday, or RFC 3339 with a zone' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand history" -l until -d 'What was there before this moment' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand history" -l cause -d 'Only what ended or failed for a cause of this kind, such as peer-unreachable or daemon-died' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand history" -l limit -d 'At most so many, the newest; 0 = all' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand history" -l color -d 'Colours' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c cygnet -n "__fish_cygnet_using_subcommand history" -l at -d 'Show one moment: who was up, who was not and since when, what ended or failed around it and why, and which webhooks were told' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand history" -l around -d 'With --at: how far around the moment events are shown' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand history" -s u -l uri -d 'Socket of the daemon' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand history" -l utc -d 'Read and show moments in UTC rather than in local time. JSON has UTC always'
complete -c cygnet -n "__fish_cygnet_using_subcommand history" -l ike-sas -d 'Show IKE SAs rather than the generations of CHILD SAs'
complete -c cygnet -n "__fish_cygnet_using_subcommand history" -l json -d 'Print one JSON document: {"totals": [...], "generations": [...]}, with --ike-sas a list. Moments are in milliseconds since the epoch. Where very many generations would have to be added up, "totals" is null, and "no-totals" says why'
complete -c cygnet -n "__fish_cygnet_using_subcommand history" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cygnet -n "__fish_cygnet_using_subcommand events" -l connection -d 'Only this connection' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand events" -l child -d 'Only children of this name' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand events" -l gateway -d 'Of another gateway that keeps its history in the same database, or of all of them' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand events" -l since -d 'What was there at this moment or later. Moments are local: how long ago (90s, 15m, 2h30m, 7d), a time of day (03:12, the last one), a date, both ("2026-01-31 03:12"), today, yesterday, or RFC 3339 with a zone' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand events" -l until -d 'What was there before this moment' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand events" -l cause -d 'Only what ended or failed for a cause of this kind, such as peer-unreachable or daemon-died' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand events" -l limit -d 'At most so many, the newest; 0 = all' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand events" -l color -d 'Colours' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c cygnet -n "__fish_cygnet_using_subcommand events" -l event -l type -d 'Only events of this name, such as child-sa.rekeyed; child-sa.* stands for all that begin so. May be given several times' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand events" -s u -l uri -d 'Socket of the daemon' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand events" -l utc -d 'Read and show moments in UTC rather than in local time. JSON has UTC always'
complete -c cygnet -n "__fish_cygnet_using_subcommand events" -s f -l follow -d 'Go on with what happens from now on, until interrupted. Without --since, only that. A daemon that is started anew is waited for, and what was missed meanwhile is fetched from the history'
complete -c cygnet -n "__fish_cygnet_using_subcommand events" -l json -d 'Print each record as a line of JSON'
complete -c cygnet -n "__fish_cygnet_using_subcommand events" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cygnet -n "__fish_cygnet_using_subcommand log" -l group -d 'Only lines of one part of the daemon: IKE, CHD, CFG, NET, ENC, KNL, MGR, JOB, LIB, DMN ...' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand log" -l for -d 'For how long, as 30s, 10m, 2h, 7d at most' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand log" -s u -l uri -d 'Socket of the daemon' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand log" -l json -d 'Print JSON'
complete -c cygnet -n "__fish_cygnet_using_subcommand log" -s h -l help -d 'Print help'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and not __fish_seen_subcommand_from list test deliveries redeliver enable disable drop secret help" -s u -l uri -d 'Socket of the daemon' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and not __fish_seen_subcommand_from list test deliveries redeliver enable disable drop secret help" -l json -d 'Print JSON'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and not __fish_seen_subcommand_from list test deliveries redeliver enable disable drop secret help" -s h -l help -d 'Print help'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and not __fish_seen_subcommand_from list test deliveries redeliver enable disable drop secret help" -f -a "list" -d 'Show every webhook: how it is doing, what waits, what was delivered and what failed. Ends with 3 when one is down, disabled or not configured any more. The same as without a word'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and not __fish_seen_subcommand_from list test deliveries redeliver enable disable drop secret help" -f -a "test" -d 'Send a signed message of type webhook.test at once and say what becomes of it. Ends with 1 when it does not arrive'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and not __fish_seen_subcommand_from list test deliveries redeliver enable disable drop secret help" -f -a "deliveries" -d 'Show deliveries, the newest event first'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and not __fish_seen_subcommand_from list test deliveries redeliver enable disable drop secret help" -f -a "redeliver" -d 'Have messages that were given up delivered again, or one whatever has become of it'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and not __fish_seen_subcommand_from list test deliveries redeliver enable disable drop secret help" -f -a "enable" -d 'Send to a disabled webhook again, beginning with what has waited'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and not __fish_seen_subcommand_from list test deliveries redeliver enable disable drop secret help" -f -a "disable" -d 'Send nothing to a webhook until it is enabled, also over restarts. Messages wait'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and not __fish_seen_subcommand_from list test deliveries redeliver enable disable drop secret help" -f -a "drop" -d 'Give up every message that waits for a webhook, such as one that is configured no more'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and not __fish_seen_subcommand_from list test deliveries redeliver enable disable drop secret help" -f -a "secret" -d 'Print a fresh secret, for cygnetd.toml and the receiver. The daemon is not asked'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and not __fish_seen_subcommand_from list test deliveries redeliver enable disable drop secret help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from list" -s u -l uri -d 'Socket of the daemon' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from list" -l json -d 'Print JSON'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from test" -s u -l uri -d 'Socket of the daemon' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from test" -l json -d 'Print JSON'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from test" -s h -l help -d 'Print help'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from deliveries" -l state -d 'Only those that are waiting, delivered or dead' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from deliveries" -l event -d 'Only of the event with this ULID' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from deliveries" -l connection -d 'Only of events of this connection' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from deliveries" -l before -d 'Go on after this delivery: ULID/NAME' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from deliveries" -l limit -d 'At most so many; 0 = as many as the daemon gives at once' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from deliveries" -s u -l uri -d 'Socket of the daemon' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from deliveries" -l json -d 'Print JSON'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from deliveries" -s h -l help -d 'Print help'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from redeliver" -l event -d 'The event with this ULID, also one that has been delivered' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from redeliver" -s u -l uri -d 'Socket of the daemon' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from redeliver" -l all -d 'Those of every webhook'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from redeliver" -l json -d 'Print JSON'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from redeliver" -s h -l help -d 'Print help'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from enable" -s u -l uri -d 'Socket of the daemon' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from enable" -l json -d 'Print JSON'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from enable" -s h -l help -d 'Print help'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from disable" -s u -l uri -d 'Socket of the daemon' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from disable" -l json -d 'Print JSON'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from disable" -s h -l help -d 'Print help'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from drop" -s u -l uri -d 'Socket of the daemon' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from drop" -l json -d 'Print JSON'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from drop" -s h -l help -d 'Print help'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from secret" -s u -l uri -d 'Socket of the daemon' -r
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from secret" -l json -d 'Print JSON'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from secret" -s h -l help -d 'Print help'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from help" -f -a "list" -d 'Show every webhook: how it is doing, what waits, what was delivered and what failed. Ends with 3 when one is down, disabled or not configured any more. The same as without a word'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from help" -f -a "test" -d 'Send a signed message of type webhook.test at once and say what becomes of it. Ends with 1 when it does not arrive'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from help" -f -a "deliveries" -d 'Show deliveries, the newest event first'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from help" -f -a "redeliver" -d 'Have messages that were given up delivered again, or one whatever has become of it'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from help" -f -a "enable" -d 'Send to a disabled webhook again, beginning with what has waited'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from help" -f -a "disable" -d 'Send nothing to a webhook until it is enabled, also over restarts. Messages wait'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from help" -f -a "drop" -d 'Give up every message that waits for a webhook, such as one that is configured no more'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from help" -f -a "secret" -d 'Print a fresh secret, for cygnetd.toml and the receiver. The daemon is not asked'
complete -c cygnet -n "__fish_cygnet_using_subcommand webhook; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c cygnet -n "__fish_cygnet_using_subcommand help; and not __fish_seen_subcommand_from status backend-sas guards simulate why doctor explain capture history events log webhook help" -f -a "status" -d 'Show every configured child: up, connecting, retrying or refused, and why it last ended or failed. Ends with 3 when one is neither up nor waiting for traffic'
complete -c cygnet -n "__fish_cygnet_using_subcommand help; and not __fish_seen_subcommand_from status backend-sas guards simulate why doctor explain capture history events log webhook help" -f -a "backend-sas" -d 'Show every SA that the data path holds, and the CHILD SA that each belongs to. Ends with 3 when one belongs to none, which is normal only for the moment in which it is installed or removed'
complete -c cygnet -n "__fish_cygnet_using_subcommand help; and not __fish_seen_subcommand_from status backend-sas guards simulate why doctor explain capture history events log webhook help" -f -a "guards" -d 'Show what an earlier run of the daemon left blocked and no child that is trapped, started or up has claimed: the guards of connections that are gone. With --drop-unclaimed they are taken down'
complete -c cygnet -n "__fish_cygnet_using_subcommand help; and not __fish_seen_subcommand_from status backend-sas guards simulate why doctor explain capture history events log webhook help" -f -a "simulate" -d 'Have a simulated device go wrong: refuse, lose or forget something, go down, come up, vanish. Tells how many SAs, policies, reports or devices it is about. Only where the daemon simulates NICs (backend.userspace.simulate_packet_device)'
complete -c cygnet -n "__fish_cygnet_using_subcommand help; and not __fish_seen_subcommand_from status backend-sas guards simulate why doctor explain capture history events log webhook help" -f -a "why" -d 'Walk one packet through this gateway, from or to either side of a tunnel, and say where it stops and what repairs that. Ends with 0 when nothing is in its way, 1 when something is, 2 when that cannot be found out'
complete -c cygnet -n "__fish_cygnet_using_subcommand help; and not __fish_seen_subcommand_from status backend-sas guards simulate why doctor explain capture history events log webhook help" -f -a "doctor" -d 'Look at devices and what each can carry, children against their devices, ports, privileges, forwarding, routes, policies, paths and files, and say what to do about each doubt. Ends with 0 when all is well, 1 with warnings, 2 with errors or when the daemon does not answer'
complete -c cygnet -n "__fish_cygnet_using_subcommand help; and not __fish_seen_subcommand_from status backend-sas guards simulate why doctor explain capture history events log webhook help" -f -a "explain" -d 'Print the `ip xfrm` commands equal to what is installed for a connection, or would be where it is not up: guard, policies, SAs (keys are masked), and the routes and rules that lead traffic into the tunnel. In order of installation, each block with the reason for it'
complete -c cygnet -n "__fish_cygnet_using_subcommand help; and not __fish_seen_subcommand_from status backend-sas guards simulate why doctor explain capture history events log webhook help" -f -a "capture" -d 'Write the packets of a connection to a pcapng file: in clear (interface `inner`), and as ESP and IKE (interface `outer`), with the SA, sequence number and generation of each, and the reason where one was dropped. Never holds up traffic: what cannot be written in time is lost and counted. Ends with Ctrl-C or at a limit'
complete -c cygnet -n "__fish_cygnet_using_subcommand help; and not __fish_seen_subcommand_from status backend-sas guards simulate why doctor explain capture history events log webhook help" -f -a "history" -d 'Show the past: what each child has carried over all its rekeys and runs of the daemon, then each generation of its CHILD SAs, the newest first, with SPIs, algorithms, the mode really in use, counters and why it ended'
complete -c cygnet -n "__fish_cygnet_using_subcommand help; and not __fish_seen_subcommand_from status backend-sas guards simulate why doctor explain capture history events log webhook help" -f -a "events" -d 'Show what has happened, the oldest first, or with --follow what happens'
complete -c cygnet -n "__fish_cygnet_using_subcommand help; and not __fish_seen_subcommand_from status backend-sas guards simulate why doctor explain capture history events log webhook help" -f -a "log" -d 'Have more lines in the daemon\'s log for a while, of one connection (or of all: \'*\'), then fall back by itself; without arguments: show what is raised and until when'
complete -c cygnet -n "__fish_cygnet_using_subcommand help; and not __fish_seen_subcommand_from status backend-sas guards simulate why doctor explain capture history events log webhook help" -f -a "webhook" -d 'Show webhooks and what they were told; send a test; deliver again; enable or disable one; make a secret'
complete -c cygnet -n "__fish_cygnet_using_subcommand help; and not __fish_seen_subcommand_from status backend-sas guards simulate why doctor explain capture history events log webhook help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c cygnet -n "__fish_cygnet_using_subcommand help; and __fish_seen_subcommand_from webhook" -f -a "list" -d 'Show every webhook: how it is doing, what waits, what was delivered and what failed. Ends with 3 when one is down, disabled or not configured any more. The same as without a word'
complete -c cygnet -n "__fish_cygnet_using_subcommand help; and __fish_seen_subcommand_from webhook" -f -a "test" -d 'Send a signed message of type webhook.test at once and say what becomes of it. Ends with 1 when it does not arrive'
complete -c cygnet -n "__fish_cygnet_using_subcommand help; and __fish_seen_subcommand_from webhook" -f -a "deliveries" -d 'Show deliveries, the newest event first'
complete -c cygnet -n "__fish_cygnet_using_subcommand help; and __fish_seen_subcommand_from webhook" -f -a "redeliver" -d 'Have messages that were given up delivered again, or one whatever has become of it'
complete -c cygnet -n "__fish_cygnet_using_subcommand help; and __fish_seen_subcommand_from webhook" -f -a "enable" -d 'Send to a disabled webhook again, beginning with what has waited'
complete -c cygnet -n "__fish_cygnet_using_subcommand help; and __fish_seen_subcommand_from webhook" -f -a "disable" -d 'Send nothing to a webhook until it is enabled, also over restarts. Messages wait'
complete -c cygnet -n "__fish_cygnet_using_subcommand help; and __fish_seen_subcommand_from webhook" -f -a "drop" -d 'Give up every message that waits for a webhook, such as one that is configured no more'
complete -c cygnet -n "__fish_cygnet_using_subcommand help; and __fish_seen_subcommand_from webhook" -f -a "secret" -d 'Print a fresh secret, for cygnetd.toml and the receiver. The daemon is not asked'
