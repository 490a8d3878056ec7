/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "sim-device.h"
#include "sim-fault.h"
#include "sim-flash.h"

G_BEGIN_DECLS

/*
 * Inside of a SimDevice:
 *   sim-config.c    one group of the devices file, with the defaults of the model
 *   sim-model.c     what is known of each model
 *   sim-firmware.c  what an image makes of the device; the image a factory would have written
 *   sim-device.c    power, link, time, faults on the way in and out
 *   sim-gatt.c      the table of characteristics; device information and thermometer service
 *   sim-auth.c      opcodes; device info and size exploration
 *   sim-register.c  sim-login.c   the two procedures
 *   sim-ota.c       sim-dfu.c     the two ways to update
 *   sim-advert.c    what is on the air
 */

#define SIM_TICK_MS      10    /* scheduler of the device (protocol/framing.md section 7) */
#define SIM_PROCEDURE_MS 30000 /* longest registration or login */
#define SIM_RESTART_MS   2000  /* from a result to the link drop */
#define SIM_BOOT_MS      1000  /* from there to the first advertisement */

#define SIM_BANK_EXTENDED       0x40000u
#define SIM_BANK_EXTENDED_LIMIT 0x34000u

/* HCI reasons */
#define SIM_REASON_TIMEOUT    0x08
#define SIM_REASON_TERMINATED 0x13

/* Records in the flash: the vendor's types, then ours. */
#define SIM_RECORD_DID      0x01
#define SIM_RECORD_DFU      0x05
#define SIM_RECORD_KEYS     0x10
#define SIM_RECORD_IDENTITY 0x60 /* what the running firmware is: see sim-firmware.c */
#define SIM_RECORD_COUNTER  0x61

/* --- models --- */

typedef enum
{
  SIM_OBJECTS_1004, /* 1004 temperature, 1006 humidity, 100A battery */
  SIM_OBJECTS_4801, /* 4801, 4802, 4803 */
  SIM_OBJECTS_4C01, /* 4C01, 4C02, 4C03 */
  SIM_OBJECTS_4C08, /* 4C01, 4C08, 4C03 */
} SimObjects;

typedef struct
{
  const char *name;       /* 2A24 */
  const char *advertised; /* name on the air */
  const char *firmware;
  const char *hardware;
  const char *serial;
  const char *manufacturer; /* (nullable) */
  guint16 product_id;
  guint8 auth_version; /* of its firmware when older than 2.1.1 */
  gboolean auth_fixed; /* of every firmware */
  guint8 dfu;
  gboolean telink;
  guint32 limit;
  guint8 beacon; /* MiBeacon version */
  gboolean beacon_plain;
  SimObjects objects;
  gboolean build_only;   /* 2A26 holds the build alone */
  gboolean build_in_sw;  /* 2A28 holds the build */
  gboolean has_battery;  /* ccc4 */
  gboolean has_interval; /* ccd8 */
  gboolean is_clock;     /* ccb7 is Unix time and zone */
  gboolean wide_values;  /* ccc1 of 6 bytes */
  gboolean not_enforced; /* takes unsigned images although its firmware could check */
} SimModel;

/* Returns: (nullable) */
const SimModel *sim_model_find (const char *name);

/* --- configuration --- */

typedef enum
{
  SIM_ADVERT_NONE,
  SIM_ADVERT_MIBEACON,
  SIM_ADVERT_MIBEACON_ENCRYPTED,
  SIM_ADVERT_ATC1441,
  SIM_ADVERT_ATC1441_ENCRYPTED,
  SIM_ADVERT_PVVX,
  SIM_ADVERT_PVVX_ENCRYPTED,
  SIM_ADVERT_BTHOME1,
  SIM_ADVERT_BTHOME1_ENCRYPTED,
  SIM_ADVERT_BTHOME,
  SIM_ADVERT_BTHOME_ENCRYPTED,
  SIM_ADVERT_QINGPING,
} SimAdvertFormat;

typedef struct
{
  const SimModel *model;
  char *hardware;
  char *firmware;
  char *serial;
  guint16 product_id;
  guint auth_version;
  gboolean has_token, has_bind_key;
  MiKeys keys; /* as from the factory */
  guint8 root[64];
  guint8 image_root[64];
  gboolean enforce;
  gboolean reject_freezes;
  gboolean accept_envelope;
  guint dfu;
  gboolean telink;
  guint32 banks[SIM_FLASH_BANKS_MAX];
  guint n_banks;
  gboolean extended; /* the last bank is that of extended OTA (protocol/ota-telink.md section 8) */
  guint32 limit;
  guint generation;
  guint16 att; /* 0: as the connection */
  guint battery;
  char *flash_file; /* (nullable) */
  gboolean advert_chosen;
  SimAdvertFormat advert;
  guint interval_ms;
  SimRadio radio;
  gboolean reset_button;
  gboolean counts_blocks;
  gboolean fill_quirk;
  guint16 io_capability;
  guint8 oob[16];
  gint16 rssi;
} SimConfig;

gboolean sim_config_read (SimConfig *self, GKeyFile *file, const char *group, SimFaults *faults,
                          GError **error);
void sim_config_clear (SimConfig *self);

/* --- firmware --- */

typedef struct
{
  MiImageKind body;
  char *version; /* (nullable): as found in the running image */
  char *answer;  /* what the device answers */
  guint auth_version;
  gboolean enforce;
} SimFirmware;

void sim_firmware_clear (SimFirmware *self);
/* As the devices file says, for the image that the factory wrote. */
void sim_firmware_from_config (SimFirmware *self, const SimConfig *config);
/* The device has just started from @bank. */
void sim_firmware_boot (SimDevice *self);
/* A factory wrote another image into the running bank. */
void sim_firmware_installed (SimDevice *self);
/* (transfer full): an image that is the firmware of @config */
GBytes *sim_firmware_build (const SimConfig *config);
gboolean sim_firmware_is_custom (const SimDevice *self);

typedef enum
{
  SIM_TRUST_SIGNED,
  SIM_TRUST_UNSIGNED, /* no trailer */
  SIM_TRUST_REFUSED,  /* a trailer that does not hold, or for another product */
} SimTrust;

/* What the device thinks of @len bytes at @bank, with the boot mark taken as set. */
SimTrust sim_firmware_verify (SimDevice *self, guint32 bank, gsize len);

/* --- OTA --- */

typedef enum
{
  SIM_OTA_IDLE,
  SIM_OTA_RUNNING,
  SIM_OTA_ENDED,
} SimOtaState;

typedef struct
{
  SimOtaState state;
  guint32 bank;
  gint32 last;
  guint8 code;
  gint64 deadline_ms;
  /* extended OTA of custom firmware */
  guint32 extended_limit; /* 0: not prepared */
  guint32 erase_at, erase_end;
  gint64 erase_due_ms; /* -1: nothing to erase */
} SimOta;

void sim_ota_reset (SimOta *self);
void sim_ota_write (SimDevice *self, const guint8 *data, gsize len);
/* @code: what is read back from 2b12 */
guint8 sim_ota_read (SimDevice *self);
void sim_ota_extended (SimDevice *self, const guint8 *data, gsize len);
void sim_ota_disconnected (SimDevice *self);
gint64 sim_ota_deadline (SimDevice *self);
void sim_ota_tick (SimDevice *self);

/* --- mible DFU --- */

typedef enum
{
  SIM_DFU_IDLE,
  SIM_DFU_DOWNLOADING,
  SIM_DFU_READY,
} SimDfuState;

#define SIM_DFU_QUEUE 2

typedef struct
{
  SimDfuState state;
  guint32 bank;
  guint16 fragment_size;
  guint16 last;
  guint32 bytes;
  guint32 crc; /* running, not inverted */
  guint32 delay_s;
  guint8 commands[SIM_DFU_QUEUE][32];
  gsize command_len[SIM_DFU_QUEUE];
  guint n_commands;
  guint8 *message; /* received, not yet stored */
  gsize message_len;
  gboolean gave_up;     /* the transfer failed */
  gint64 work_ms;       /* when commands and messages are worked on, -1 */
  gint64 switch_due_ms; /* -1 */
} SimDfu;

void sim_dfu_init (SimDfu *self);
void sim_dfu_reset (SimDevice *self);
/* Forgets what was verified: the bank is needed otherwise. */
void sim_dfu_abandon (SimDevice *self);
void sim_dfu_command (SimDevice *self, const guint8 *data, gsize len);
void sim_dfu_data (SimDevice *self, const guint8 *data, gsize len);
/* What the transfer on 0x0018 came to. */
void sim_dfu_event (SimDevice *self, const MiFrameEvent *event);
/* The next message on 0x0018 is wanted. */
void sim_dfu_expect (SimDevice *self, gsize max);
void sim_dfu_disconnected (SimDevice *self);
gint64 sim_dfu_deadline (SimDevice *self);
void sim_dfu_tick (SimDevice *self);

/* --- procedures on 0x0010 and 0x0019 --- */

typedef enum
{
  SIM_PROCEDURE_NONE,
  SIM_PROCEDURE_EXPLORE,
  SIM_PROCEDURE_INFO,
  SIM_PROCEDURE_REGISTER,
  SIM_PROCEDURE_LOGIN,
} SimProcedure;

typedef enum
{
  SIM_INPUT_OPCODE,
  SIM_INPUT_SENT,
  SIM_INPUT_RECEIVED,
  SIM_INPUT_FAILED,
  SIM_INPUT_EXPLORED,
} SimInputKind;

/* Something for the device's scheduler to look at. */
typedef struct
{
  SimInputKind kind;
  guint32 opcode;
  guint8 type;
  gsize len;
  guint8 data[512];
} SimInput;

typedef struct
{
  guint state; /* of sim-register.c or sim-login.c */
  guint8 oob_method;
  gboolean has_oob;
  guint8 oob[16];
  guint8 own_random[MI_RANDOM_LEN];
  guint8 host_random[MI_RANDOM_LEN];
  guint8 host_confirm[32];
  guint8 host_key[64];
  guint8 own_key[64];
  guint8 secret[32];
  guint8 derived[64];
  guint8 credential[92];
  gsize credential_len;
} SimExchange;

typedef struct
{
  MiSizes sizes;
  MiFrame *frame;     /* 0x0019; NULL while not connected */
  MiFrame *dfu_frame; /* 0x0018 */
  MiEffects *effects;
  GQueue inputs; /* of SimInput */
  gint64 work_ms;
  SimProcedure procedure;
  gint64 limit_ms;
  guint32 kept_opcode; /* arrived during the device info, 0: none */
  gboolean deaf;       /* swallows everything until the limit */
  gboolean logged_in;
  SimExchange x;
} SimAuth;

void sim_auth_connected (SimDevice *self);
void sim_auth_disconnected (SimDevice *self);
void sim_auth_opcode (SimDevice *self, const guint8 *data, gsize len);
void sim_auth_data (SimDevice *self, const guint8 *data, gsize len);
gint64 sim_auth_deadline (SimDevice *self);
void sim_auth_tick (SimDevice *self);

/* For the procedures. */
void sim_auth_send (SimDevice *self, guint8 type, const guint8 *data, gsize len);
void sim_auth_expect (SimDevice *self, guint8 type, gsize max);
void sim_auth_answer (SimDevice *self, guint32 opcode);
/* Ends the procedure: idle, nothing pending. @opcode: 0: in silence */
void sim_auth_end (SimDevice *self, guint32 opcode);

/* From now on nothing is answered until the procedure's limit. */
void sim_auth_swallow (SimDevice *self);

void sim_register_start (SimDevice *self, guint32 opcode);
void sim_register_input (SimDevice *self, const SimInput *input);
void sim_login_start (SimDevice *self);
void sim_login_input (SimDevice *self, const SimInput *input);

/* --- the device --- */

typedef enum
{
  SIM_POWER_ON,
  SIM_POWER_BOOTING,
  SIM_POWER_FROZEN, /* silent until the battery is taken out */
} SimPower;

typedef enum
{
  SIM_PENDING_NONE,
  SIM_PENDING_DROP,
  SIM_PENDING_POWER_CYCLE,
} SimPending;

typedef struct
{
  gint64 temperature; /* 0.01 °C */
  gint64 humidity;    /* 0.01 % */
  guint millivolts;
  guint percent;
} SimMeasurement;

struct _SimDevice
{
  SimConfig config;
  char *address;
  guint8 mac[6]; /* display order */
  MiRandomFunc random;
  gpointer random_data;
  MiModels *models; /* borrowed, nullable */
  gint64 now;

  SimFlash *flash;
  guint8 *flash_copy;
  guint32 running;
  SimFirmware firmware;
  MiKeys keys;
  gboolean has_token, has_bind_key;

  SimPower power;
  gint64 restart_ms; /* when it will restart, -1 */
  gint64 boot_ms;    /* when it will be up, -1 */
  gint64 drop_ms;    /* when a silent device's link times out, -1 */
  gint64 booted_ms;  /* when it came up */

  gboolean connected;
  guint16 att;
  SimFaults faults;
  guint packets_in, packets_out, statuses;
  SimPending pending; /* what happens to the link at the end of this step */
  guint8 drop_reason;
  GQueue delayed; /* of packets that a fault holds back */

  SimAuth auth;
  SimOta ota;
  SimDfu dfu;

  GArray *gatt; /* of SimCharacteristic */
  guint8 time[8];
  gsize time_len;
  gint64 time_set_ms;
  guint8 unit;

  char *name;
  guint32 counter_base;   /* of the advertisements at @counter_from */
  guint32 counter_stored; /* value in the flash */
  gint64 counter_from;
  guint8 advert[64];

  GQueue outputs; /* of OutputItem */
  gpointer taken; /* what the last pop gave */
};

/* Notifies the host, past the faults. */
void sim_device_notify (SimDevice *self, guint16 channel, const guint8 *data, gsize len);
void sim_device_event (SimDevice *self, const char *format, ...) G_GNUC_PRINTF (2, 3);
void sim_device_changed (SimDevice *self, SimOutputKind kind);
/* Drops the link when the current step is over; nothing is sent any more. */
void sim_device_drop (SimDevice *self, guint8 reason);
/* Link drop and restart, @after_ms from now. */
void sim_device_restart (SimDevice *self, gint64 after_ms);
void sim_device_freeze (SimDevice *self);
void sim_device_save (SimDevice *self);
void sim_device_store_keys (SimDevice *self);
/* The bank that does not run. */
guint32 sim_device_target (const SimDevice *self);
/* Bytes that a bank holds. */
guint32 sim_device_bank_limit (const SimDevice *self, guint32 bank);
/* Makes @bank bootable, then the running one no longer so; both are sound meanwhile. */
void sim_device_switch (SimDevice *self, guint32 bank);
/* A status is about to be told: a fault may change it. */
guint8 sim_device_status (SimDevice *self, guint8 status);
/* The earlier of two times, -1 meaning never. */
gint64 sim_earlier (gint64 a, gint64 b);

void sim_gatt_rebuild (SimDevice *self);
const SimCharacteristic *sim_gatt_find (SimDevice *self, guint16 channel);
gboolean sim_gatt_read (SimDevice *self, guint16 channel, guint8 *out, gsize *len, GError **error);
void sim_gatt_write (SimDevice *self, guint16 channel, const guint8 *data, gsize len);

void sim_measure (const SimDevice *self, SimMeasurement *out);
void sim_advert_boot (SimDevice *self);
void sim_advert_registered (SimDevice *self);

G_END_DECLS
