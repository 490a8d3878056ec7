# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Sourced by the MQTT service: what the supervisor knows about the broker becomes the bridge's configuration.
mqtt_conf=$MITHERM_RUN/mqtt.conf
mqtt_user=$MITHERM_RUN/mqtt.user
# Seconds to wait before what the broker has refused is tried again; not there: it has not.
mqtt_refused=$MITHERM_RUN/mqtt.refused

# broker_field NAME: a field of the supervisor's answer, nothing if it has none
broker_field() {
	local value
	value=$(bashio::services mqtt "$1") || return 1
	[ "$value" = null ] || printf '%s' "$value"
}

# Asks the supervisor. Status 1, and a reason in broker_problem, if there is no broker that can be used.
# shellcheck disable=SC2034 # for who sources this
broker_ask() {
	broker_problem='there is no MQTT service yet; install and start the app "Mosquitto broker"'
	bashio::services.available mqtt || return 1
	# An answer that was remembered may be that of a broker whose password has changed since.
	bashio::cache.flush_all
	broker_host=$(broker_field host) && broker_port=$(broker_field port) && broker_tls=$(broker_field ssl) &&
		broker_user=$(broker_field username) && broker_password=$(broker_field password) || return 1
	[ -n "$broker_host" ] || return 1
	broker_problem="the supervisor's answer about the MQTT service makes no sense"
	[[ $broker_host =~ ^[A-Za-z0-9._:-]+$ && $broker_port =~ ^[0-9]{1,5}$ ]] || return 1
	[[ $broker_user != *$'\n'* && $broker_password != *$'\n'* ]] || return 1
	[ "$broker_tls" = true ] || return 0
	broker_ca=$(app_option ca_file)
	if [ -z "$broker_ca" ]; then
		broker_ca=/etc/ssl/certs/ca-certificates.crt
		[ -r "$broker_ca" ] || broker_ca=
		return 0
	fi
	broker_ca=$MITHERM_SSL/$broker_ca
	broker_problem="the certificate file $broker_ca cannot be read (option ca_file)"
	[ -r "$broker_ca" ]
}

# Returns when there is a broker that can be used. Each reason that there is none is told once.
broker_await() {
	local told=
	until broker_ask; do
		if [ "$told" != "$broker_problem" ]; then
			bashio::log.warning "Home Assistant is not served: $broker_problem"
			told=$broker_problem
		fi
		sleep "$MITHERM_RETRY_S"
	done
}

# What the bridge was given last, if it was.
broker_written() {
	cat "$mqtt_conf" "$mqtt_user" 2>/dev/null || true
}

# After a refusal: returns when the supervisor knows other credentials, or when it is time to try the same again.
broker_await_better() {
	local before pause until
	before=$1
	[ -e "$mqtt_refused" ] || return 0
	pause=$(cat "$mqtt_refused")
	until=$((SECONDS + pause))
	bashio::log.warning "Home Assistant is not served: the broker refuses the user and the password that the supervisor knows;" \
		"next try when they change, or in $pause s"
	while [ "$(broker_written)" = "$before" ]; do
		[ "$SECONDS" -lt "$until" ] || return 0
		sleep "$MITHERM_RETRY_S"
		broker_await
		broker_write
	done
	rm -f "$mqtt_refused"
}

# broker_note_end CODE: after the end of the bridge. Its status 3 is a refusal: the same again within a while waits twice as long.
broker_note_end() {
	local pause=$MITHERM_REFUSED_S
	if [ "$1" != 3 ]; then
		rm -f "$mqtt_refused"
		return
	fi
	if [ -e "$mqtt_refused" ] && [ -n "$(find "$MITHERM_RUN" -name mqtt.start -newermt '-60 seconds')" ]; then
		pause=$(($(cat "$mqtt_refused") * 2))
		[ "$pause" -le 3600 ] || pause=3600
	fi
	echo "$pause" >"$mqtt_refused"
}

# Replaces the files as a whole; nobody but root can read them (umask of app.sh).
broker_write() {
	rm -f "$mqtt_user"
	if [ -n "$broker_user" ]; then
		printf '%s\n%s\n' "$broker_user" "$broker_password" >"$mqtt_user"
	fi
	{
		printf '[broker]\nHost=%s\nPort=%s\n' "$broker_host" "$broker_port"
		if [ "$broker_tls" = true ]; then
			printf 'TLS=true\n'
			[ -z "$broker_ca" ] || printf 'CAFile=%s\n' "$broker_ca"
		else
			printf 'TLS=false\n'
		fi
		[ -z "$broker_user" ] || printf 'UserFile=%s\n' "$mqtt_user"
		printf '\n[discovery]\nPrefix=homeassistant\n'
	} >"$mqtt_conf.new"
	mv "$mqtt_conf.new" "$mqtt_conf"
}
