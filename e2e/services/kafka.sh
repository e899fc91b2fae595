#!/usr/bin/env bash
# Apache Kafka in KRaft mode on free loopback ports, from Maven packages and the JDK (17 or newer) that is there.
#
#   kafka.sh start [--brokers 1|3] [--behind PORTS] [--tls] [--while PID] DIR
#                                                      starts brokers that keep everything in DIR; once they answer, prints lines to eval:
#                                                        KAFKA_BROKERS=host:port,…       no authentication
#                                                        KAFKA_SASL_BROKERS=host:port,…  SASL/PLAIN, user "holdfast", password "holdfast"
#                                                      With --behind PORT,… (one for each broker) also
#                                                        KAFKA_BEHIND=host:port,…        no authentication; clients of it are told
#                                                                                        127.0.0.1:PORT, where a proxy leads here
#                                                      With --tls also
#                                                        KAFKA_SSL_BROKERS=host:port,…       TLS, no authentication
#                                                        KAFKA_SASL_SSL_BROKERS=host:port,…  SASL/PLAIN as above, over TLS
#                                                        KAFKA_CA=FILE                       who signed their certificates: made for DIR alone
#                                                      In a DIR that was started before, starts those brokers again that do not run.
#                                                      With --while they are stopped once the process PID is gone.
#   kafka.sh stop DIR                                  stops them; what they stored stays in DIR
#   kafka.sh fetch                                     gets Kafka's packages if they are not there, as the others do by themselves
#   kafka.sh tool CLASS [ARGUMENT…]                    runs one of Kafka's tools, such as org.apache.kafka.tools.TopicCommand
#
# DIR/broker-N/pid is the process of broker N (1 to 3), DIR/broker-N/log what it says. Topics are not created by being used. Three brokers keep
# three replicas of a topic and ask for two in sync; one keeps one. A lost broker is replaced as leader after 3 s. Their heap is small, 512 MiB or
# three times 384; KAFKA_HEAP_OPTS ("-Xms1g -Xmx1g", as Kafka's own start script has it) gives each another one.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
jars=${KAFKA_JARS:-$here/../../.cache/kafka}

main() {
  case ${1-} in
    start) shift; start "$@" ;;
    stop) shift; [ $# = 1 ] || usage; stop "$1" ;;
    fetch) [ $# = 1 ] || usage; fetch ;;
    tool) shift; [ $# -ge 1 ] || usage; fetch; exec java -cp "$jars/*" "-Dlog4j2.configurationFile=$here/kafka-log4j2.xml" "$@" ;;
    *) usage ;;
  esac
}

usage() {
  sed -n '3,19s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

start() {
  local brokers=1 while_pid= behind= tls= dir
  while [ $# -gt 1 ]; do
    case $1 in
      --brokers) brokers=$2; shift 2 ;;
      --behind) behind=${2//,/ }; shift 2 ;;
      --tls) tls=yes; shift ;;
      --while) while_pid=$2; shift 2 ;;
      *) usage ;;
    esac
  done
  [ $# = 1 ] && [ "${1#-}" = "$1" ] || usage
  case $brokers in 1|3) ;; *) usage ;; esac
  fetch
  mkdir -p "$1"
  dir=$(cd "$1" && pwd)
  [ -e "$dir/addresses" ] || configure "$dir" "$brokers" "$tls" $behind
  # Before there is anything to stop: this script may end in the middle, with whoever called it.
  [ -z "$while_pid" ] || stop_with "$while_pid" "$dir"
  for broker in "$dir"/broker-*; do
    is_running "$broker" || run "$broker"
  done
  for broker in "$dir"/broker-*; do
    wait_for "$broker"
  done
  cat "$dir/addresses"
}

# The packages, once: under a lock, since several test binaries may come at the same time.
fetch() {
  mkdir -p "$jars"
  (
    flock 9
    cmp -s "$here/pom.xml" "$jars/pom.xml" && exit
    rm -f "$jars"/*.jar
    # Maven resets colours all the same, whoever listens.
    mvn -q -B -Dstyle.color=never -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$jars" 2>&1 |
      sed 's/\x1b\[[0-9;]*m//g' >&2
    cp "$here/pom.xml" "$jars/pom.xml"
  ) 9>"$jars/lock"
}

configure() {
  local dir=$1 brokers=$2 tls=$3 voters= plain= sasl= behind= ssl= sasl_ssl= n
  local ports=($(free_ports $((brokers * 6)))) proxies=("${@:4}")
  [ -z "$tls" ] || certify "$dir"
  for n in $(seq "$brokers"); do
    local at=$(((n - 1) * 6))
    plain+=,127.0.0.1:${ports[at]}
    sasl+=,127.0.0.1:${ports[at + 1]}
    voters+=,$n@127.0.0.1:${ports[at + 2]}
    behind+=,127.0.0.1:${ports[at + 3]}
    ssl+=,127.0.0.1:${ports[at + 4]}
    sasl_ssl+=,127.0.0.1:${ports[at + 5]}
  done
  for n in $(seq "$brokers"); do
    local at=$(((n - 1) * 6)) broker=$dir/broker-$n
    mkdir -p "$broker"
    properties "$broker" "$n" "$brokers" "${voters#,}" "${ports[@]:at:4}" "${proxies[n - 1]:-${ports[at + 3]}}" >"$broker/properties"
    [ -z "$tls" ] || properties_of_tls "$dir" "${ports[@]:at + 4:2}" >>"$broker/properties"
    java -Xmx128m -XX:TieredStopAtLevel=1 -cp "$jars/*" "-Dlog4j2.configurationFile=$here/kafka-log4j2.xml" \
      kafka.tools.StorageTool format -t holdfastAAAAAAAAAAAAAA -c "$broker/properties" >"$broker/format" 2>&1 &
  done
  for n in $(jobs -p); do
    wait "$n" || { cat "$dir"/broker-*/format >&2; exit 1; }
  done
  printf 'KAFKA_BROKERS=%s\nKAFKA_SASL_BROKERS=%s\n' "${plain#,}" "${sasl#,}" >"$dir/addresses"
  [ -z "$tls" ] || printf 'KAFKA_SSL_BROKERS=%s\nKAFKA_SASL_SSL_BROKERS=%s\nKAFKA_CA=%s\n' "${ssl#,}" "${sasl_ssl#,}" "$dir/ca.pem" >>"$dir/addresses"
  [ ${#proxies[@]} = 0 ] || printf 'KAFKA_BEHIND=%s\n' "${behind#,}" >>"$dir/addresses"
}

properties() {
  local broker=$1 n=$2 brokers=$3 voters=$4 plain=$5 sasl=$6 controller=$7 behind=$8 proxy=$9
  local in_sync=$(((brokers + 1) / 2))
  cat <<END
process.roles=broker,controller
node.id=$n
controller.quorum.voters=$voters
listeners=PLAINTEXT://127.0.0.1:$plain,SASL_PLAINTEXT://127.0.0.1:$sasl,BEHIND://127.0.0.1:$behind,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$plain,SASL_PLAINTEXT://127.0.0.1:$sasl,BEHIND://127.0.0.1:$proxy
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,BEHIND:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_holdfast="holdfast" user_stranger="stranger";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:holdfast
allow.everyone.if.no.acl.found=true
log.dirs=$broker/data
auto.create.topics.enable=false
default.replication.factor=$brokers
min.insync.replicas=$in_sync
offsets.topic.num.partitions=1
offsets.topic.replication.factor=$brokers
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=$brokers
transaction.state.log.min.isr=$in_sync
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=$brokers
share.coordinator.state.topic.min.isr=$in_sync
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
controlled.shutdown.enable=false
END
}

# A certificate for 127.0.0.1 and who signed it, whose key nobody keeps.
certify() {
  local dir=$1
  {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=a CA for tests" -keyout "$dir/ca.key" -out "$dir/ca.pem"
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=127.0.0.1" -keyout "$dir/broker.key" -out "$dir/broker.csr"
    openssl x509 -req -in "$dir/broker.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -set_serial 1 -days 30 -extfile <(echo "subjectAltName=IP:127.0.0.1") -out "$dir/broker.crt"
  } 2>"$dir/certify" || { cat "$dir/certify" >&2; exit 1; }
  cat "$dir/broker.key" "$dir/broker.crt" >"$dir/broker.pem"
  rm -f "$dir/ca.key" "$dir/broker.key" "$dir/broker.csr" "$dir/broker.crt"
}

# Lines that stand behind those above and take their place.
properties_of_tls() {
  local dir=$1 ssl=$2 sasl=$3 name
  for name in listeners advertised.listeners; do
    sed -n "s/^\($name=.*\)/\1,SSL:\/\/127.0.0.1:$ssl,SASL_SSL:\/\/127.0.0.1:$sasl/p" "$broker/properties"
  done
  sed -n 's/^\(listener.security.protocol.map=.*\)/\1,SSL:SSL,SASL_SSL:SASL_SSL/p' "$broker/properties"
  sed -n 's/^listener.name.sasl_plaintext\.\(.*\)/listener.name.sasl_ssl.\1/p' "$broker/properties"
  printf 'ssl.keystore.type=PEM\nssl.keystore.location=%s\n' "$dir/broker.pem"
}

# Ports below those that the system hands out by itself, so that nobody else gets one before the broker listens.
free_ports() {
  local wanted=$1 port ports=()
  while [ ${#ports[@]} -lt "$wanted" ]; do
    port=$((20000 + RANDOM % 12000))
    [[ " ${ports[*]-} " == *" $port "* ]] && continue
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || ports+=("$port")
  done
  echo "${ports[@]}"
}

run() {
  local broker=$1 heap=(-Xmx512m)
  [ ! -e "${broker%/*}/broker-2" ] || heap=(-Xmx384m)
  [ -z "${KAFKA_HEAP_OPTS-}" ] || read -ra heap <<<"$KAFKA_HEAP_OPTS"
  : >"$broker/log"
  setsid java "${heap[@]}" -XX:+ExitOnOutOfMemoryError -cp "$jars/*" "-Dlog4j2.configurationFile=$here/kafka-log4j2.xml" \
    kafka.Kafka "$broker/properties" </dev/null >>"$broker/log" 2>&1 9>&- &
  echo $! >"$broker/pid"
}

# A process that was killed and not yet reaped has no command line, one that got the number afterwards has another.
is_running() {
  [ -e "$1/pid" ] && grep -qsF "$1/properties" "/proc/$(cat "$1/pid")/cmdline"
}

wait_for() {
  local broker=$1 deadline=$((SECONDS + 180))
  until grep -q 'Kafka Server started' "$broker/log"; do
    # Not by its command line, which it has only once it runs Java.
    if ! kill -0 "$(cat "$broker/pid")" 2>/dev/null || [ $SECONDS -ge $deadline ]; then
      echo "kafka.sh: ${broker##*/} does not come up; the end of $broker/log:" >&2
      tail -20 "$broker/log" >&2
      stop "${broker%/*}"
      exit 1
    fi
    sleep 0.05
  done
}

stop_with() {
  local pid=$1 dir=$2
  (
    trap '' HUP INT TERM
    while kill -0 "$pid" 2>/dev/null && [ -e "$dir/addresses" ]; do sleep 0.5; done
    stop "$dir"
  ) </dev/null >/dev/null 2>&1 &
}

# Gently first, so that brokers close their logs; one that was stopped by SIGSTOP has to hear of it.
stop() {
  local dir=$1 broker deadline=$((SECONDS + 5))
  for signal in TERM CONT; do
    for broker in "$dir"/broker-*; do
      ! is_running "$broker" || kill "-$signal" "$(cat "$broker/pid")" 2>/dev/null || true
    done
  done
  for broker in "$dir"/broker-*; do
    while is_running "$broker" && [ $SECONDS -lt $deadline ]; do sleep 0.05; done
    ! is_running "$broker" || kill -KILL "$(cat "$broker/pid")" 2>/dev/null || true
    rm -f "$broker/pid"
  done
}

main "$@"
