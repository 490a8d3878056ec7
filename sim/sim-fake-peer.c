/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-fake-private.h"

#define DEFAULT_INTERVAL_MS 1000
#define DEFAULT_ATT_PAYLOAD 20

/* The next time on the device's own raster, strictly after @now. */
static gint64
next_advert_ms (FakePeer *peer, gint64 now)
{
  gint64 since = now - (gint64) peer->phase_ms;

  return now + peer->interval_ms - since % peer->interval_ms;
}

static gboolean
is_listened_to (FakePeer *peer)
{
  return peer->link == NULL && (peer->bluez->discovering > 0 || peer->n_connecting > 0);
}

void
fake_peer_update_advert (FakePeer *peer)
{
  if (!is_listened_to (peer))
    sim_timer_stop (peer->bluez->schedule, &peer->advert_timer);
  else if (!sim_timer_is_running (&peer->advert_timer))
    sim_timer_start (peer->bluez->schedule, &peer->advert_timer,
                     next_advert_ms (peer, sim_now_ms ()));
}

static void
hear (FakePeer *peer, FakeAdapter *adapter, const SimAdvert *advert)
{
  FakeDevice *device = peer->devices->pdata[adapter->index];

  SimAdvert passive = *advert;

  /* The name is in the answer to a question that nobody asks then. */
  if (adapter->n_sessions == 0)
    passive.name = NULL;
  if (fake_adapter_is_wanted (adapter, peer, advert))
    {
      advert = &passive;
      if (device == NULL)
        device = fake_device_new (adapter, peer, advert);
      else
        fake_device_heard (device, advert);
    }
  if (device != NULL && advert->connectable)
    fake_device_try_connect (device);
}

static void
on_advert (gpointer user_data)
{
  FakePeer *peer = user_data;
  GPtrArray *adapters = peer->bluez->adapters;
  SimAdvert advert;

  if (!sim_device_get_advert (peer->sim, sim_now_ms (), &advert))
    {
      fake_peer_update_advert (peer); /* silent now; look again an interval later */
      return;
    }
  peer->interval_ms = MAX (advert.interval_ms, 1);
  for (guint i = 0; i < adapters->len && peer->link == NULL; i++)
    if (adapters->pdata[i] != NULL)
      hear (peer, adapters->pdata[i], &advert);
  fake_peer_update_advert (peer);
}

void
fake_peer_forge (FakePeer *peer, guint16 uuid, const guint8 *data, gsize len)
{
  GPtrArray *adapters = peer->bluez->adapters;
  SimAdvert advert = { .rssi = -60 };

  sim_device_get_advert (peer->sim, sim_now_ms (), &advert);
  advert.uuid = uuid;
  advert.data = data;
  advert.len = len;
  advert.connectable = FALSE;
  for (guint i = 0; i < adapters->len; i++)
    if (adapters->pdata[i] != NULL)
      hear (peer, adapters->pdata[i], &advert);
}

/* --- the device's outputs --- */

static void
take_output (FakePeer *peer, const SimOutput *output)
{
  switch (output->kind)
    {
    case SIM_OUTPUT_NOTIFY:
      if (peer->link != NULL)
        fake_link_notified (peer->link, output->channel, output->data, output->len);
      break;
    case SIM_OUTPUT_EVENT:
      sim_control_event (peer->bluez->control, peer->address, output->json);
      break;
    case SIM_OUTPUT_DISCONNECTED:
      if (peer->link != NULL)
        fake_link_hung_up (peer->link);
      break;
    case SIM_OUTPUT_ADVERT:
      fake_peer_update_advert (peer);
      break;
    case SIM_OUTPUT_GATT:
      if (peer->link != NULL)
        fake_link_table_changed (peer->link);
      break;
    default:
      g_return_if_reached ();
    }
}

void
fake_peer_pump (FakePeer *peer)
{
  SimOutput output;
  gint64 deadline;

  if (peer->pumping) /* the loop below goes on */
    return;
  peer->pumping = TRUE;
  while (sim_device_pop (peer->sim, &output))
    take_output (peer, &output);
  peer->pumping = FALSE;
  deadline = sim_device_deadline (peer->sim);
  if (deadline < 0)
    sim_timer_stop (peer->bluez->schedule, &peer->tick_timer);
  else if (!sim_timer_is_running (&peer->tick_timer) || peer->tick_timer.due_ms != deadline)
    sim_timer_start (peer->bluez->schedule, &peer->tick_timer, deadline);
}

static void
on_tick (gpointer user_data)
{
  FakePeer *peer = user_data;

  sim_device_tick (peer->sim, sim_now_ms ());
  fake_peer_pump (peer);
}

/* --- the link --- */

gboolean
fake_peer_connect (FakePeer *peer, FakeDevice *device)
{
  g_autoptr (GError) error = NULL;

  if (peer->link != NULL)
    return FALSE;
  if (!sim_device_connect (peer->sim, sim_now_ms (), peer->att_payload, &error))
    {
      g_debug ("%s: %s", peer->address, error->message);
      return FALSE;
    }
  peer->linked = device;
  peer->link = fake_link_new (device);
  return TRUE;
}

void
fake_peer_drop_link (FakePeer *peer)
{
  FakeDevice *device = g_steal_pointer (&peer->linked);

  if (device == NULL)
    return;
  g_clear_pointer (&peer->link, fake_link_free);
  if (sim_device_is_connected (peer->sim))
    sim_device_disconnect (peer->sim, sim_now_ms ());
  fake_device_link_down (device);
  fake_peer_pump (peer);
  fake_peer_update_advert (peer);
}

/* --- making one --- */

static guint16
get_att_payload (GKeyFile *config, const char *group)
{
  int value = g_key_file_get_integer (config, group, "Att", NULL);

  return value >= 20 && value <= SIM_PACKET_MAX ? (guint16) value : DEFAULT_ATT_PAYLOAD;
}

FakePeer *
fake_peer_new (FakeBluez *bluez, GKeyFile *config, const char *group, GError **error)
{
  g_autoptr (SimDevice) sim
      = sim_device_new (config, group, bluez->options.random, bluez->options.random_data, error);
  FakePeer *peer;

  if (sim == NULL)
    return NULL;
  sim_device_set_models (sim, bluez->options.models);
  peer = g_new0 (FakePeer, 1);
  peer->bluez = bluez;
  peer->sim = g_steal_pointer (&sim);
  peer->address = g_strdup (sim_device_get_address (peer->sim));
  peer->att_payload = get_att_payload (config, group);
  peer->devices = g_ptr_array_new ();
  g_ptr_array_set_size (peer->devices, (gint) bluez->options.adapters);
  peer->interval_ms = DEFAULT_INTERVAL_MS;
  peer->phase_ms = g_rand_int_range (bluez->rand, 0, 10000);
  sim_timer_init (&peer->advert_timer, on_advert, peer);
  sim_timer_init (&peer->tick_timer, on_tick, peer);
  return peer;
}

void
fake_peer_free (FakePeer *peer)
{
  sim_timer_stop (peer->bluez->schedule, &peer->advert_timer);
  sim_timer_stop (peer->bluez->schedule, &peer->tick_timer);
  g_clear_pointer (&peer->link, fake_link_free);
  sim_device_free (peer->sim);
  g_ptr_array_unref (peer->devices);
  g_free (peer->address);
  g_free (peer);
}
