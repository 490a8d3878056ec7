/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "bridge-mqtt.h"

#include <gio/gio.h>
#include <glib-unix.h>
#include <mosquitto.h>
#include <string.h>

#define KEEPALIVE_S     30
#define MISC_INTERVAL_S 2
#define SETTLE_S        3
#define RETRY_FIRST_MS  1000
#define RETRY_MAX_MS    60000
#define REPEAT_LOG_US   (10 * 60 * G_USEC_PER_SEC)
#define STOP_LIMIT_MS   2000
#define OLD_AFTER_US    (60 * G_USEC_PER_SEC)
/* What may wait for the broker's acknowledgements; all of one thermometer is 5 messages. */
#define MAX_OUTSTANDING   1024
#define MAX_SUBSCRIPTIONS 8
#define CLIENT_ID_HEX     12
/* Comes back to us behind everything that the broker kept. */
#define ECHO_TOPIC          "mitherm/bridge/echo"
#define ECHO_LEN            16
#define CONNECT_NOT_ALLOWED 5
#define CONNECT_BAD_LOGIN   4

typedef struct
{
  char *topic;
  int qos;
  gboolean once;
} Subscription;

struct _BridgeMqtt
{
  const BridgeConfig *config;
  const BridgeMqttCallbacks *callbacks;
  gpointer data;
  struct mosquitto *client;
  Subscription subscriptions[MAX_SUBSCRIPTIONS];
  guint n_subscriptions;

  guint io_id;
  GIOCondition io_condition;
  int io_fd;
  guint misc_id, retry_id, settle_id, stop_id;

  gboolean connected;
  gboolean announce;   /* on_connected is still to be called */
  gboolean settled_in; /* our echo has come back: what comes now is new */
  char echo[ECHO_LEN + 1];
  gboolean away_long; /* what the broker kept for us is too old */
  gboolean refused;   /* the attempt under way, because of user and password */
  gint64 lost_us;     /* when the connection was lost; 0: never was one */
  guint outstanding;
  gboolean dropped;
  guint retry_ms;
  char *reason; /* why there is no connection, as last logged */
  gint64 reason_us;
  char *pending_reason; /* of the attempt under way */
  GSourceFunc stopped;
  gpointer stopped_data;
};

static void connect_now (BridgeMqtt *self);
static void update_io (BridgeMqtt *self);

static void
note_reason (BridgeMqtt *self, const char *reason)
{
  /* The first reason of an attempt is the cause, later ones only follow from it. */
  if (self->pending_reason == NULL)
    self->pending_reason = g_strdup (reason);
}

static void
log_lost (BridgeMqtt *self, guint next_ms)
{
  gint64 now = g_get_monotonic_time ();
  const char *reason
      = self->pending_reason != NULL ? self->pending_reason : "the connection was closed";

  if (g_strcmp0 (self->reason, reason) == 0 && now - self->reason_us < REPEAT_LOG_US)
    return;
  g_warning ("broker %s:%u: %s; next try in %u s, then less and less often", self->config->host,
             self->config->port, reason, (next_ms + 999) / 1000);
  g_free (self->reason);
  self->reason = g_strdup (reason);
  self->reason_us = now;
}

static gboolean
on_retry (gpointer data)
{
  BridgeMqtt *self = data;

  self->retry_id = 0;
  connect_now (self);
  return G_SOURCE_REMOVE;
}

static void
finish_stop (BridgeMqtt *self)
{
  GSourceFunc stopped = self->stopped;

  g_clear_handle_id (&self->stop_id, g_source_remove);
  self->stopped = NULL;
  if (stopped != NULL)
    stopped (self->stopped_data);
}

/* After any call of libmosquitto that can have closed the socket. */
static void
handle_loss (BridgeMqtt *self)
{
  guint delay;

  g_clear_handle_id (&self->io_id, g_source_remove);
  g_clear_handle_id (&self->misc_id, g_source_remove);
  g_clear_handle_id (&self->settle_id, g_source_remove);
  /* Before everything that was too old has come, it stays too old. */
  if (self->connected && (self->settled_in || !self->away_long))
    self->lost_us = g_get_monotonic_time ();
  self->connected = FALSE;
  if (self->stopped != NULL || self->stop_id != 0)
    {
      finish_stop (self);
      return;
    }
  if (self->retry_id != 0)
    return;
  /* Jitter, so that many clients do not come back to a restarted broker in one moment. */
  delay = self->retry_ms + (guint) g_random_int_range (0, (gint32) self->retry_ms / 4 + 1);
  log_lost (self, delay);
  g_clear_pointer (&self->pending_reason, g_free);
  self->retry_ms = MIN (self->retry_ms * 2, RETRY_MAX_MS);
  self->retry_id = g_timeout_add (delay, on_retry, self);
  if (self->refused)
    self->callbacks->on_refused (self->data);
}

static const char *
error_text (int code)
{
  return code == MOSQ_ERR_ERRNO ? g_strerror (errno) : mosquitto_strerror (code);
}

static void
after_io (BridgeMqtt *self, int code)
{
  if (code > MOSQ_ERR_SUCCESS && code != MOSQ_ERR_NO_CONN)
    note_reason (self, error_text (code));
  if (self->announce)
    {
      self->announce = FALSE;
      self->callbacks->on_connected (self->data);
    }
  if (mosquitto_socket (self->client) < 0)
    handle_loss (self);
  else
    update_io (self);
}

static gboolean
on_io (gint fd, GIOCondition condition, gpointer data)
{
  BridgeMqtt *self = data;
  int code = MOSQ_ERR_SUCCESS;

  if (condition & (G_IO_IN | G_IO_HUP | G_IO_ERR | G_IO_NVAL))
    code = mosquitto_loop_read (self->client, 1);
  if (code == MOSQ_ERR_SUCCESS && (condition & G_IO_OUT) && mosquitto_socket (self->client) >= 0)
    code = mosquitto_loop_write (self->client, 1);
  /* This source dies in after_io, if its conditions change. */
  after_io (self, code);
  return self->io_id != 0 ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

static void
update_io (BridgeMqtt *self)
{
  int fd = mosquitto_socket (self->client);
  GIOCondition wanted = G_IO_IN | G_IO_HUP | G_IO_ERR;

  if (fd < 0)
    return;
  if (mosquitto_want_write (self->client))
    wanted |= G_IO_OUT;
  if (self->io_id != 0 && self->io_condition == wanted && self->io_fd == fd)
    return;
  g_clear_handle_id (&self->io_id, g_source_remove);
  self->io_condition = wanted;
  self->io_fd = fd;
  self->io_id = g_unix_fd_add (fd, wanted, on_io, self);
}

static gboolean
on_misc (gpointer data)
{
  BridgeMqtt *self = data;
  guint id = self->misc_id;

  after_io (self, mosquitto_loop_misc (self->client));
  return self->misc_id == id ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

static void
connect_now (BridgeMqtt *self)
{
  int code;

  g_clear_pointer (&self->pending_reason, g_free);
  self->refused = FALSE;
  g_debug ("connecting to %s:%u", self->config->host, self->config->port);
  /* Looks names up while it waits; nothing else is urgent as long as there is no broker. */
  code
      = mosquitto_connect_async (self->client, self->config->host, self->config->port, KEEPALIVE_S);
  if (code > MOSQ_ERR_SUCCESS)
    note_reason (self, error_text (code));
  if (mosquitto_socket (self->client) < 0)
    {
      handle_loss (self);
      return;
    }
  self->misc_id = g_timeout_add_seconds (MISC_INTERVAL_S, on_misc, self);
  update_io (self);
}

static gboolean
on_settle (gpointer data)
{
  BridgeMqtt *self = data;

  self->settle_id = 0;
  /* A broker that lets us in and throws us out at once is none that works, and no news each time.
   */
  g_message ("connected to the broker %s:%u", self->config->host, self->config->port);
  self->retry_ms = RETRY_FIRST_MS;
  g_clear_pointer (&self->reason, g_free);
  /* Where access rules swallow the echo. */
  self->settled_in = TRUE;
  for (guint i = 0; i < self->n_subscriptions; i++)
    if (self->subscriptions[i].once)
      mosquitto_unsubscribe (self->client, NULL, self->subscriptions[i].topic);
  self->callbacks->on_settled (self->data);
  after_io (self, MOSQ_ERR_SUCCESS);
  return G_SOURCE_REMOVE;
}

static void
note_refusal (BridgeMqtt *self, int code)
{
  self->refused = code == CONNECT_NOT_ALLOWED || code == CONNECT_BAD_LOGIN;
  note_reason (self, self->refused
                         ? "refused: user and password are wrong or not allowed (UserFile)"
                         : mosquitto_connack_string (code));
}

/*
 * QoS 1: what cannot be written now waits in libmosquitto for the next connection all the same, so
 * that it counts.
 */
static int
publish (BridgeMqtt *self, const char *topic, const char *payload, gboolean retain)
{
  int code
      = mosquitto_publish (self->client, NULL, topic, (int) strlen (payload), payload, 1, retain);

  if (code != MOSQ_ERR_NOMEM && code != MOSQ_ERR_INVAL)
    self->outstanding++;
  return code;
}

static void
send_echo (BridgeMqtt *self)
{
  g_snprintf (self->echo, sizeof self->echo, "%08x%08x", g_random_int (), g_random_int ());
  mosquitto_subscribe (self->client, NULL, ECHO_TOPIC, 1);
  /* Where too much waits, on_settle stands in for it. */
  if (self->outstanding < MAX_OUTSTANDING)
    publish (self, ECHO_TOPIC, self->echo, FALSE);
}

static gboolean
is_echo (BridgeMqtt *self, const struct mosquitto_message *message)
{
  if (!g_str_equal (message->topic, ECHO_TOPIC))
    return FALSE;
  if (message->payloadlen == ECHO_LEN && memcmp (message->payload, self->echo, ECHO_LEN) == 0)
    self->settled_in = TRUE;
  return TRUE;
}

static void
on_connect (struct mosquitto *client, void *data, int code)
{
  BridgeMqtt *self = data;

  if (code != 0)
    {
      note_refusal (self, code);
      return;
    }
  /* A broker that says so again is wrong: nothing begins anew, no timer is lost. */
  if (self->connected)
    return;
  g_debug ("the broker has let us in");
  self->connected = TRUE;
  self->settled_in = FALSE;
  self->away_long = self->lost_us == 0 || g_get_monotonic_time () - self->lost_us > OLD_AFTER_US;
  for (guint i = 0; i < self->n_subscriptions; i++)
    mosquitto_subscribe (client, NULL, self->subscriptions[i].topic, self->subscriptions[i].qos);
  send_echo (self);
  self->settle_id = g_timeout_add_seconds (SETTLE_S, on_settle, self);
  /* libmosquitto first repeats what was not acknowledged before: newer states must follow it. */
  self->announce = TRUE;
}

static void
on_disconnect (struct mosquitto *client, void *data, int code)
{
  BridgeMqtt *self = data;

  if (code != MOSQ_ERR_SUCCESS && self->stopped == NULL)
    note_reason (self, code == MOSQ_ERR_CONN_LOST ? "the connection was lost" : error_text (code));
}

static void
on_subscribe (struct mosquitto *client, void *data, int mid, int n, const int *granted)
{
  BridgeMqtt *self = data;

  for (int i = 0; i < n; i++)
    if (granted[i] > 2)
      g_warning ("broker %s:%u: refuses a subscription: check its access rules", self->config->host,
                 self->config->port);
}

static void
on_message (struct mosquitto *client, void *data, const struct mosquitto_message *message)
{
  BridgeMqtt *self = data;
  BridgeArrival arrival = BRIDGE_ARRIVAL_NEW;

  if (is_echo (self, message))
    return;
  if (message->retain)
    arrival = BRIDGE_ARRIVAL_RETAINED;
  else if (!self->settled_in)
    arrival = self->away_long ? BRIDGE_ARRIVAL_OLD : BRIDGE_ARRIVAL_KEPT;
  self->callbacks->on_message (message->topic, message->payload, (gsize) message->payloadlen,
                               arrival, self->data);
}

static void
on_publish (struct mosquitto *client, void *data, int mid)
{
  BridgeMqtt *self = data;

  if (self->outstanding > 0)
    self->outstanding--;
  if (self->outstanding == 0 && self->dropped && self->connected)
    {
      self->dropped = FALSE;
      self->callbacks->on_drained (self->data);
    }
}

/* libmosquitto tells the cause of TLS trouble in its log alone. */
static void
on_log (struct mosquitto *client, void *data, int level, const char *text)
{
  BridgeMqtt *self = data;

  g_debug ("libmosquitto: %s", text);
  if (level == MOSQ_LOG_ERR)
    note_reason (self, text);
}

/* Stable over restarts, as the broker keeps commands for it; another one on another machine. */
static char *
make_client_id (const BridgeConfig *config)
{
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);
  g_autofree char *machine = NULL;
  g_autofree char *hex = NULL;

  if (g_file_get_contents ("/etc/machine-id", &machine, NULL, NULL))
    g_checksum_update (sum, (const guchar *) machine, -1);
  g_checksum_update (sum, (const guchar *) g_get_host_name (), -1);
  g_checksum_update (sum, (const guchar *) config->prefix, -1);
  hex = g_strndup (g_checksum_get_string (sum), CLIENT_ID_HEX);
  return g_strconcat ("mitherm-", hex, NULL);
}

static int
set_up (BridgeMqtt *self, const char *will_topic)
{
  static const char will[] = "offline";
  const BridgeConfig *config = self->config;
  int code = mosquitto_will_set (self->client, will_topic, sizeof will - 1, will, 1, TRUE);

  if (code == MOSQ_ERR_SUCCESS && config->user != NULL)
    code = mosquitto_username_pw_set (self->client, config->user, config->password);
  if (code == MOSQ_ERR_SUCCESS && config->tls)
    code = config->ca_file != NULL
               ? mosquitto_tls_set (self->client, config->ca_file, NULL, NULL, NULL, NULL)
               : mosquitto_int_option (self->client, MOSQ_OPT_TLS_USE_OS_CERTS, 1);
  return code;
}

BridgeMqtt *
bridge_mqtt_new (const BridgeConfig *config, const char *will_topic,
                 const BridgeMqttCallbacks *callbacks, gpointer data, GError **error)
{
  g_autoptr (BridgeMqtt) self = g_new0 (BridgeMqtt, 1);
  g_autofree char *client_id = make_client_id (config);
  int code;

  mosquitto_lib_init ();
  self->config = config;
  self->callbacks = callbacks;
  self->data = data;
  self->retry_ms = RETRY_FIRST_MS;
  /* A lasting session: commands that come while the broker and we are apart are not lost. */
  self->client = mosquitto_new (client_id, FALSE, self);
  code = self->client != NULL ? set_up (self, will_topic) : MOSQ_ERR_NOMEM;
  if (code != MOSQ_ERR_SUCCESS)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_FAILED, "MQTT: %s%s%s", error_text (code),
                   config->ca_file != NULL ? ": " : "",
                   config->ca_file != NULL ? config->ca_file : "");
      return NULL;
    }
  /* No limit of its own: ours is MAX_OUTSTANDING. */
  mosquitto_int_option (self->client, MOSQ_OPT_SEND_MAXIMUM, 0);
  mosquitto_connect_callback_set (self->client, on_connect);
  mosquitto_disconnect_callback_set (self->client, on_disconnect);
  mosquitto_subscribe_callback_set (self->client, on_subscribe);
  mosquitto_message_callback_set (self->client, on_message);
  mosquitto_publish_callback_set (self->client, on_publish);
  mosquitto_log_callback_set (self->client, on_log);
  return g_steal_pointer (&self);
}

void
bridge_mqtt_free (BridgeMqtt *self)
{
  g_clear_handle_id (&self->io_id, g_source_remove);
  g_clear_handle_id (&self->misc_id, g_source_remove);
  g_clear_handle_id (&self->retry_id, g_source_remove);
  g_clear_handle_id (&self->settle_id, g_source_remove);
  g_clear_handle_id (&self->stop_id, g_source_remove);
  if (self->client != NULL)
    mosquitto_destroy (self->client);
  mosquitto_lib_cleanup ();
  for (guint i = 0; i < self->n_subscriptions; i++)
    g_free (self->subscriptions[i].topic);
  g_free (self->reason);
  g_free (self->pending_reason);
  g_free (self);
}

void
bridge_mqtt_subscribe (BridgeMqtt *self, const char *topic, int qos, gboolean once)
{
  g_return_if_fail (self->n_subscriptions < MAX_SUBSCRIPTIONS);
  self->subscriptions[self->n_subscriptions++]
      = (Subscription){ .topic = g_strdup (topic), .qos = qos, .once = once };
}

void
bridge_mqtt_start (BridgeMqtt *self)
{
  connect_now (self);
}

static gboolean
on_stop_tick (gpointer data)
{
  BridgeMqtt *self = data;

  self->stop_id = 0;
  if (mosquitto_socket (self->client) >= 0)
    mosquitto_disconnect (self->client);
  if (self->stopped != NULL)
    after_io (self, MOSQ_ERR_SUCCESS);
  finish_stop (self);
  return G_SOURCE_REMOVE;
}

void
bridge_mqtt_stop (BridgeMqtt *self, GSourceFunc done, gpointer data)
{
  self->stopped = done;
  self->stopped_data = data;
  g_clear_handle_id (&self->retry_id, g_source_remove);
  if (!self->connected)
    {
      finish_stop (self);
      return;
    }
  self->stop_id = g_timeout_add (STOP_LIMIT_MS, on_stop_tick, self);
  /* Goes out behind what was published. */
  mosquitto_disconnect (self->client);
  after_io (self, MOSQ_ERR_SUCCESS);
}

gboolean
bridge_mqtt_is_connected (BridgeMqtt *self)
{
  return self->connected;
}

gboolean
bridge_mqtt_publish (BridgeMqtt *self, const char *topic, const char *payload, gboolean retain)
{
  int code;

  if (!self->connected)
    return FALSE;
  if (self->outstanding >= MAX_OUTSTANDING)
    {
      self->dropped = TRUE;
      return FALSE;
    }
  code = publish (self, topic, payload, retain);
  if (code != MOSQ_ERR_SUCCESS)
    g_debug ("%s: %s", topic, mosquitto_strerror (code));
  update_io (self);
  return code == MOSQ_ERR_SUCCESS;
}
