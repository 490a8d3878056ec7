# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Sourced by the services. The folders can be given by the environment, so that the services also run outside of a container.
umask 077
: "${MITHERM_APP:=/usr/lib/mitherm-app}" "${MITHERM_RUN:=/run/mitherm}"
: "${MITHERM_DATA:=/data}" "${MITHERM_CONFIG:=/config}" "${MITHERM_SSL:=/ssl}"
: "${MITHERM_RETRY_S:=15}" "${MITHERM_PAUSE_S:=3}" "${MITHERM_REFUSED_S:=60}"
: "${MITHERM_HALT:=/run/s6/basedir/bin/halt}"
: "${MITHERM_RESULTS:=/run/s6-linux-init-container-results}"
PATH=$PATH:/usr/libexec
# shellcheck disable=SC2034 # for who sources this
app_bus=unix:path=$MITHERM_RUN/bus

# app_option NAME: a value of the configuration, nothing if it is not set
app_option() {
	if bashio::config.has_value "$1"; then
		bashio::config "$1"
	fi
}

app_level=$(app_option log_level)
bashio::log.level "${app_level:-info}"

# app_exec PROGRAM OPTION...: becomes the program; its log passes as far as the configuration wants it
app_exec() {
	local quiet='^(\*\* |[A-Za-z0-9_-]+-)?(Message|INFO|DEBUG): '
	case $app_level in
	debug) exec "$@" --verbose ;;
	warning) ;;
	error) quiet="$quiet|WARNING \*\*: " ;;
	*) exec "$@" ;;
	esac
	exec "$@" 2> >(exec grep --line-buffered -vE "$quiet" >&2)
}

# app_finished SERVICE CODE SIGNAL STOP: after the end of a service, as s6 tells it. One of the codes in STOP (a list, or "any")
# stops the whole app, so that a configuration that cannot work does not fail for ever; others end in a restart by s6.
app_finished() {
	local code=$2
	[ "$code" != 256 ] || code=$((128 + $3))
	case $code in
	0 | 143)
		bashio::log.info "$1 has ended"
		return
		;;
	esac
	case " $4 " in
	*" $code "* | " any ")
		bashio::log.fatal "$1 has ended with status $code; the app stops"
		echo "$code" >"$MITHERM_RESULTS/exitcode"
		exec "$MITHERM_HALT"
		;;
	esac
	bashio::log.warning "$1 has ended with status $code and is started again"
	sleep "$MITHERM_PAUSE_S"
}
